"""Interventions raced by successive halving (Jamieson and Talwalkar 2016): all for a while, the best to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mlxstories.ladder.exchange.exchange import AS_IS, Exchange, Gap, gap
from mlxstories.ladder.exchange.inside_model import for_model
from mlxstories.ladder.exchange.inside_step import for_rate, for_step
from mlxstories.ladder.exchange.intervention import Intervention
from mlxstories.ladder.exchange.parts import for_parts
from mlxstories.ladder.exchange.run import Run, own_step

_ROUNDS = ((0.25, None), (0.5, 4), (1.0, 2))
"""Share of the updates, and how many of the best go on to it."""


@dataclass(frozen=True)
class Proof:
    """The intervention that helps most, and by how much.

    Attributes:
        intervention: what was changed.
        run: the training with it.
        beside: the training without it, on the same batches.
    """

    intervention: Intervention
    run: Run
    beside: Run

    @property
    def gap(self) -> Gap:
        return gap(self.beside, self.run)


def best_in_step(exchange: Exchange, *, rate: bool = False) -> Proof | None:
    """The change of the subject's own step that leaves least loss; with ``rate``, of the size of its updates."""
    bench = exchange.bench

    def make(change: Intervention):
        model, optimizer = bench.model(), bench.optimizer()
        change.optimizer(optimizer)
        return model, optimizer, own_step(bench, change.scale, own_gradient=change.own_gradient)

    return _race(exchange, for_rate() if rate else for_step(bench), make, exchange.runs[AS_IS])


def best_in_model(exchange: Exchange) -> Proof | None:
    """The change inside the subject's model, trained by the plain step and loss, that leaves least loss."""

    def make(change: Intervention):
        model, optimizer, step = exchange.own_model_by(exchange.rate)
        change.model(model)
        return model, optimizer, step

    model = exchange.bench.model()
    with exchange.bench.calling("looking for changes inside the model"):
        changes = for_model(model, exchange.bench.subject.vocab_size)
        changes += for_parts(exchange.bench, exchange.shape)
    return _race(exchange, changes, make, exchange.own)


def _race(exchange: Exchange, changes: Sequence[Intervention], make, beside: Run) -> Proof | None:
    runs = {
        change.name: Run(exchange.bench, change.name, partial(make, change), exchange.clock, change.around)
        for change in changes
    }
    going = list(changes)
    for share, most in _ROUNDS:
        going = sorted(going, key=lambda change: runs[change.name].loss)[:most]
        for change in going:
            exchange.tell(f"with {change.name}")
            runs[change.name].advance(share)
        going = [change for change in going if runs[change.name].broke is None]
    if not going:
        return None
    best = min(going, key=lambda change: runs[change.name].loss)
    return Proof(best, runs[best.name], beside)
