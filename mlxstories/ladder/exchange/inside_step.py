"""Small reversible changes of a subject's own training step, one thing each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import mlx.optimizers as optim
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.optimizers import parts, read_rate, read_schedule
from mlxstories.ladder.bench.step.schedule_restarts import count_restarts
from mlxstories.ladder.exchange.intervention import OPTIMIZER, Intervention, Site, is_own
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.function_lines import function_line
from mlxstories.ladder.where.places import Line, defined, updated_in

_BETAS, _EPSILON = [0.9, 0.999], 1e-8
_MOMENTUM = 0.9
_DESCENT = 0.4  # of the peak, on a run's average: a line or a cosine to 0 has a little more


def for_step(bench: Bench, lowered: bool = False) -> list[Intervention]:
    """Those that change anything in this subject's step; ``lowered`` says that it lowers the rate by itself."""
    found = [
        Intervention("the optimiser given the gradient of the loss", "step", own_gradient=True),
        Intervention("gradients not clipped", "step", around=_unclipped),
    ]
    each, made = parts(bench.optimizer()), _made(bench)
    if bench.schedule.scheduled or lowered:
        meant = bool(bench.subject.updates) if lowered else _falls_with_the_run(bench)
        schedule = each[0]._schedulers.get("learning_rate")
        change = Intervention(
            "the rate constant at its peak",
            "step",
            optimizer=_constant,
            late=True,
            wanted=meant,
            site=_at_line(defined(schedule) if schedule is not None else None),
        )
        found.append(change)
    if any(getattr(o, "weight_decay", 0) for o in each):
        found.append(_set(made, "no weight decay", weight_decay=0.0))
    if any(list(getattr(o, "betas", _BETAS)) != _BETAS or getattr(o, "eps", _EPSILON) > 1e-6 for o in each):
        found.append(
            _set(made, "the optimiser's moments and epsilon at their standard", betas=_BETAS, eps=_EPSILON)
        )
    if any(getattr(o, "bias_correction", True) is False for o in each):
        found.append(_set(made, "Adam's bias corrected", bias_correction=True))
    if any(getattr(o, "momentum", 0) > _MOMENTUM for o in each):
        found.append(_set(made, "momentum at 0.9", momentum=_MOMENTUM))
    return found + _own_updates(each)


def _made(bench: Bench) -> Site:
    """Where the subject makes its optimiser."""
    function = bench.subject.optimizer
    line = function_line(bench, "behind-reference", "optimizer") or (function and defined(function))
    return _at_line(line) or Site(part=OPTIMIZER)


def _set(made: Site, name: str, **wanted) -> Intervention:
    """What the optimiser was made with, set otherwise."""
    return Intervention(name, "step", optimizer=_setting(**wanted), site=made)


def _falls_with_the_run(bench: Bench) -> bool:
    """Whether the schedule goes once through the run that the subject states, as a line or a cosine to 0 does: a
    constant rate then only makes larger updates, which a short run has too few of."""
    updates, schedule = bench.subject.updates, bench.schedule
    if not updates:
        return False
    rates = schedule.at(np.arange(updates))
    falls_once = rates.min() >= 0 and not count_restarts(rates)
    return bool(falls_once and rates.mean() >= _DESCENT * schedule.peak)


def _own_updates(each: list[Optimizer]) -> list[Intervention]:
    """An update of the subject's own exchanged for that of the library's optimiser of its kind, at its own rate."""
    usual = {n: library for n, part in enumerate(each) if (library := _library_of(part)) is not None}
    if not usual:
        return []

    def change(optimizer: Optimizer) -> None:
        for n, library in usual.items():
            _update_as(parts(optimizer)[n], library)

    first = next(iter(usual))
    own = type(each[first])
    name = f"the update of the library's {usual[first].__name__} in place of {own.__name__}'s"
    return [Intervention(name, "step", optimizer=change, wanted=True, site=_at_line(updated_in(own)))]


def _at_line(line: Line | None) -> Site | None:
    return Site(part="step", file=line.file, line=line.line) if line is not None else None


def _library_of(part: Optimizer) -> type[Optimizer] | None:
    """The library's optimiser that one with an update of its own derives from, or Adam; None where the update is the
    library's, or nothing is known of its rate."""
    makers = [cls for cls in type(part).__mro__ if {"apply_single", "apply_gradients"} & vars(cls).keys()]
    if not is_own(makers[0]) or read_rate(part) is None:
        return None
    return next((cls for cls in makers if not is_own(cls) and cls is not Optimizer), optim.Adam)


def _update_as(part: Optimizer, library: type[Optimizer]) -> None:
    if not isinstance(part, library):
        part.betas, part.eps, part.bias_correction = _BETAS, _EPSILON, True
    part.init_single, part.apply_single = (
        partial(library.init_single, part),
        partial(library.apply_single, part),
    )
    part.apply_gradients = partial(Optimizer.apply_gradients, part)


def for_rate() -> list[Intervention]:
    """Other sizes of the update."""
    return [
        Intervention("updates multiplied by 10", "step", scale=10.0),
        Intervention("updates multiplied by 3", "step", scale=3.0),
        Intervention("updates divided by 10", "step", scale=0.1),
    ]


def _setting(**wanted):
    def change(optimizer: Optimizer) -> None:
        for part in parts(optimizer):
            for name, value in wanted.items():
                if hasattr(part, name):
                    setattr(part, name, value)

    return change


def _constant(optimizer: Optimizer) -> None:
    """No schedule: the rate stays constant, whatever the step sets it to."""
    for part in parts(optimizer):
        peak = read_schedule(part).peak
        part._schedulers.pop("learning_rate", None)
        part.apply_gradients = _at(part, peak)


def _at(part: Optimizer, rate: float) -> Callable:
    apply = part.apply_gradients

    def held(gradients, parameters):
        part.learning_rate = rate
        return apply(gradients, parameters)

    return held


@contextmanager
def _unclipped() -> Iterator[None]:
    """``clip_grad_norm`` passes gradients on, also where a module holds it under its own name."""
    clip = optim.clip_grad_norm

    def measure(gradients, max_norm):
        return gradients, clip(gradients, max_norm)[1]

    with Patches() as patches:
        for module in list(sys.modules.values()):
            # The exchange's own plain step keeps its limit.
            if module is not None and not getattr(module, "__name__", "").startswith("mlxstories.ladder."):
                for name in [n for n, v in list(vars(module).items()) if v is clip]:
                    patches.replace(module, name, measure)
        yield
