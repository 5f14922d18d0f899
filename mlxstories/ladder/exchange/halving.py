"""Interventions raced by successive halving (Jamieson and Talwalkar 2016): all run for a while, the best to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import mlx.nn as nn
import numpy as np

from mlxstories.ladder.capture.copies import clone
from mlxstories.ladder.exchange.exchange import ALL, AS_IS, LOSS, Exchange, Gap, gap
from mlxstories.ladder.exchange.inside_branches import for_branches
from mlxstories.ladder.exchange.inside_model import drawn_matrices, for_model, wide_layers
from mlxstories.ladder.exchange.inside_modules import first_gains, own_dropouts
from mlxstories.ladder.exchange.inside_step import for_rate, for_step
from mlxstories.ladder.exchange.intervention import Intervention
from mlxstories.ladder.exchange.parts import for_parts
from mlxstories.ladder.exchange.reference import PlainDecoder
from mlxstories.ladder.exchange.training import Training, own_optimizer, own_step

_ROUNDS = ((1 / 8, None), (1 / 4, 12), (1 / 2, 4), (1.0, 3))
"""Share of the updates, and how many of the best go on to it."""
_HOPELESS = (1 / 4, 1.02), (1 / 2, 1.0)
"""Share of the updates, and times the loss without a change from which the change is given up there."""
HELPS = 0.03  # of the loss, that a change takes away: beside it a second seed is asked


@dataclass(frozen=True)
class Proof:
    """The intervention that helps most, and by how much.

    Attributes:
        intervention: what was changed.
        run: the training with it.
        beside: the training without it, on the same batches.
        control: the plain decoder without the same change and with it, where it can be made there.
    """

    intervention: Intervention
    run: Training
    beside: Training
    control: tuple[Training, Training] | None = None

    def gap(self, margin: float | None = None) -> Gap:
        """What the change takes away, beyond what it takes away from the plain decoder."""
        helped = gap(self.beside, self.run, margin)
        return helped if self.control is None else helped.beyond(gap(*self.control))

    @property
    def helps_any(self) -> bool:
        """Whether the change helps the plain decoder more than it helps here beyond that."""
        return self.control is not None and gap(*self.control).share > self.gap().share


def best_in_step(exchange: Exchange, *, rate: bool = False) -> list[Proof]:
    """The changes of the subject's own step that leave least loss; with ``rate``, of the size of its updates, beside
    first weights from which its updates only get away slowly."""
    bench = exchange.bench
    hands_out_one = bench.optimizer() is bench.optimizer()  # with which other trainings go on

    def make(change: Intervention, seed: int):
        model, optimizer = bench.model(seed), own_optimizer(bench)
        change.model(model)
        if change.optimizer is not None:
            optimizer = clone(optimizer) if hands_out_one else optimizer
            change.optimizer(optimizer)
        return model, optimizer, own_step(bench, change.scale, own_gradient=change.own_gradient)

    beside, model = exchange.runs[AS_IS], bench.model()
    first = [*first_gains(model), *wide_layers(model), *drawn_matrices(model)]
    changes = [*for_rate(), *first] if rate else for_step(bench, _lowers(beside))
    return _race(exchange, changes, make, beside, beside)


def _lowers(run: Training) -> bool:
    """Whether the rate of an optimiser without a schedule ends below half of what it was at first."""
    bench, last = run.bench, run.rate
    return bool(not bench.schedule.scheduled and last is not None and last < bench.schedule.peak / 2)


def best_in_model(exchange: Exchange, *, dropouts: bool = False) -> list[Proof]:
    """The changes inside the subject's model, trained by the plain step and loss, that leave least loss; with
    ``dropouts``, those of its own dropout alone."""
    hands_out_one = exchange.bench.hands_out_one_model  # with which other trainings go on

    def make(change: Intervention, seed: int):
        model, optimizer, step = exchange.own_model_by(seed, exchange.rates[LOSS])
        model = clone(model) if hands_out_one else model
        change.model(model)
        return model, optimizer, step

    model = exchange.bench.model()
    with exchange.bench.calling("looking for changes inside the model"):
        changes = own_dropouts(model) if dropouts else _inside(exchange, model)
    return _race(exchange, changes, make, exchange.own, exchange.runs[LOSS])


def _inside(exchange: Exchange, model: nn.Module) -> list[Intervention]:
    return [
        *for_model(model, exchange.bench.subject.vocab_size),
        *for_branches(exchange.bench),
        *for_parts(exchange.bench, exchange.shape),
    ]


def controlled(exchange: Exchange, proof: Proof) -> Proof:
    """A proof with its control: what speeds up any model shows no mistake in this one."""
    name, model = proof.intervention.name, PlainDecoder(exchange.shape)
    same = next((c for c in for_model(model, exchange.bench.subject.vocab_size) if c.name == name), None)
    if same is None:
        return proof

    def make(seed: int):
        model, optimizer, step = exchange.plain_model_by(seed, exchange.rates[ALL])
        same.model(model)
        return model, optimizer, step

    exchange.tell(f"{ALL} with {name}")
    run = Training(exchange.bench, f"{ALL} with {name}", make, exchange.clock, same.around, redrawn=True)
    return replace(proof, control=(exchange.runs[ALL], run.advance()))


def _race(
    exchange: Exchange,
    changes: Sequence[Intervention],
    make,
    beside: Training,
    without: Training,
) -> list[Proof]:
    """The best of the changes, the better first, ``beside`` the training that they are held against.

    A change acts from the first update on, but for a schedule's, whose end may lie far ahead: what makes no difference
    to the same training ``without`` it is given up at once, and later what is not ahead of it.
    """
    runs = {
        change.name: Training(
            exchange.bench,
            change.name,
            partial(make, change),
            exchange.clock,
            change.around,
            redrawn=change.redrawn,
        )
        for change in changes
    }
    plain = dict(without.curve)
    going = list(changes)
    for share, most in _ROUNDS:
        going = _front(going, runs, most)
        for change in going:
            exchange.tell(f"with {change.name}")
            runs[change.name].advance(share)
        going = [c for c in going if c.late or _promises(runs[c.name], plain, share)]
    going = sorted(going, key=lambda change: runs[change.name].loss)
    return [Proof(change, runs[change.name], beside) for change in going]


def _front(
    changes: Sequence[Intervention], runs: dict[str, Training], most: int | None
) -> list[Intervention]:
    """The best so far; of parts drawn anew, which prove less, no more than one."""
    ranked = sorted(changes, key=lambda change: runs[change.name].loss)
    if most is None:
        return ranked
    redrawn = [change for change in ranked if change.redrawn][:1]
    return [change for change in ranked if not change.redrawn][: most - len(redrawn)] + redrawn


def _promises(run: Training, without: dict[int, float], share: float) -> bool:
    if run.broke is not None:
        return False
    beside = without.get(run.updates, np.nan)
    if not np.isfinite(beside):
        return True
    hopeless = [times for since, times in _HOPELESS if share >= since]
    return run.loss < hopeless[-1] * beside if hopeless else run.loss != beside
