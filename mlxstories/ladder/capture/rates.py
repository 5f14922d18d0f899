"""The learning rates that a script sets by hand, as seen, compared with the length of its run and with what it
computes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING

import mlx.core as mx

from mlxstories.findings import ERROR, WARNING, Finding, Place
from mlxstories.findings.limits import CLIMBS, LEAPS, Limit
from mlxstories.ladder.bench.step.adam import adams
from mlxstories.ladder.bench.step.optimizers import RateCurve, parts
from mlxstories.ladder.where.places import Line, parsed, place, user_frames

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

LIMITS = SimpleNamespace(
    climbs=CLIMBS,
    leaps=LEAPS,
    spent=Limit(0.1, "of the run, at 1 % of the peak or less"),
    half=Limit(0.5, "of the run, at 1 % of the peak or less"),
    still=Limit(0.05, "of the run, at a rate of 0 from its start"),
    same=Limit(1.0001, "times the lowest rate"),
    apart=Limit(2.0, "times the lowest of the rates that the script computes"),
    enough=Limit(7, "updates"),
    down=Limit(0.5, "of the peak, where it stays"),
    early=Limit(0.5, "of the run, when it has come down"),
    stays=Limit(3, "updates of one rate"),
    collects=Limit(1, "gradients an update"),
    within=Limit(1, "updates from the run's end, were each gradient one"),
)
_NAMES = ("learning_rate", "lr", "current_lr", "new_lr")
_RUNG = "script"


def meant(frame: FrameType | None) -> float | None:
    """The number that the innermost of the user's frames holds as its learning rate."""
    for own in user_frames(frame):
        for name in _NAMES:
            value = own.f_locals.get(name)
            if isinstance(value, mx.array) and value.size == 1:
                value = value.item()
            if isinstance(value, float):
                return value
    return None


def by_hand(script: CapturedScript) -> bool:
    """Whether rates were seen that no schedule of MLX's gives."""
    first = script.loop.first_optimizer
    return bool(script.rates) and not any(part._schedulers for part in parts(first))


def warming(script: CapturedScript) -> bool:
    """Whether a rate set by hand still rises."""
    rates = script.rates
    if not by_hand(script) or len(rates) < 2:
        return False
    return rates[-1] > 1.0001 * rates[0] and rates[-2] < rates[-1] >= max(rates)


def falling(script: CapturedScript, most: int) -> bool:
    """Whether a rate set by hand may run out within a number of gradients that can be watched."""
    rates, rounds = script.rates, script.loop.seen.rounds
    return by_hand(script) and rounds is not None and rounds <= most and min(rates) < 0.999 * max(rates)


def findings(script: CapturedScript) -> Iterator[Finding]:
    """A rate that is 0 from the start, a warmup that takes most of the run or does not meet what follows, a rate that
    is spent before its end, and one that the script computes and its optimiser never hears of."""
    if not by_hand(script):
        return
    curve = RateCurve(True, tuple(range(len(script.rates))), tuple(script.rates))
    yield from _nought(script, curve)
    yield from _unheard(script, curve)
    yield from _leaps(script, curve)
    if script.subject.updates and curve.peak > 0:
        yield from _climbs(script, curve, script.subject.updates)
        yield from _spent(script, curve, script.subject.updates) or _settled(
            script, curve, script.subject.updates
        )


def _nought(script: CapturedScript, curve: RateCurve) -> Iterator[Finding]:
    """A warmup may begin at 0, but the second update has a rate. Of two optimisers the other may be at work."""
    still = next((n for n, rate in enumerate(curve.rates) if rate), len(curve.rates))
    run = script.subject.updates or len(curve.rates)
    if script.loop.seen.shared or not (LIMITS.enough.above(still) and LIMITS.still.above(still / run)):
        return
    yield Finding(
        "no-update",
        ERROR,
        _RUNG,
        f"the learning rate that is set by hand is 0 in each of the first {still} updates: they change nothing",
        {"still": still, "watched": len(curve.rates)},
        "compute it from the peak that is meant, not from the rate that was set before, and begin above 0",
        place(_line(script)),
    )


def _climbs(script: CapturedScript, curve: RateCurve, updates: int) -> Iterator[Finding]:
    if LIMITS.climbs.above(curve.peak_step / updates):
        yield Finding(
            "warmup-too-long",
            ERROR,
            _RUNG,
            f"the learning rate that is set by hand climbs for at least {curve.peak_step} of the run's {updates} "
            f"updates, up to {curve.peak:.3g}",
            {"warmup_steps": curve.peak_step, "run_steps": updates, "peak": curve.peak},
            f"warm up for about {max(1, updates // 20)} updates, 5 % of the run",
            place(_line(script)),
        )


def _leaps(script: CapturedScript, curve: RateCurve) -> Iterator[Finding]:
    leap = curve.leap
    if leap is not None and LIMITS.leaps.above(leap.times):
        yield Finding(
            "schedule-out-of-step",
            WARNING,
            _RUNG,
            f"the learning rate that is set by hand climbs to {leap.before:.3g} over {leap.update + 1} updates, and is "
            f"{leap.after:.3g} at the next one: the schedule's pieces do not meet",
            {"update": leap.update, "before": leap.before, "after": leap.after},
            "let each piece start at the rate at which the one before it ends",
            _computed(script) or place(_line(script)),
        )


def _spent(script: CapturedScript, curve: RateCurve, updates: int) -> list[Finding]:
    """Only what was seen counts: a rate may rise again."""
    spent = 0 if curve.end is None else len(curve.rates) - curve.end
    if not LIMITS.spent.above(spent / updates):
        return []
    return [
        Finding(
            "schedule-out-of-step",
            ERROR if LIMITS.half.above(spent / updates) else WARNING,
            _RUNG,
            f"the learning rate that is set by hand is 1 % of its peak or less from update {curve.end} on: at least "
            f"{spent / updates:.0%} of the run's {updates} updates change next to nothing",
            {"end": curve.end, "updates": updates},
            f"let the schedule last for all {updates} updates",
            place(_line(script)),
        )
    ]


def _settled(script: CapturedScript, curve: RateCurve, updates: int) -> list[Finding]:
    """A rate that has come down and stays where it is before half of the run; an error where it goes by the gradients
    of which an update collects several."""
    rates, last = curve.rates, curve.rates[-1]
    settled = len(rates) - next((n for n, rate in enumerate(reversed(rates)) if rate != last), len(rates))
    stays = LIMITS.stays.above(len(rates) - settled) and not LIMITS.early.above(settled / updates)
    if not LIMITS.enough.above(len(rates)) or LIMITS.down.above(last / curve.peak) or not stays:
        return []
    each = script.collects
    in_gradients = LIMITS.collects.above(each) and not LIMITS.within.above(
        abs((settled + 0.5) - updates / each)
    )
    return [
        Finding(
            "schedule-out-of-step",
            ERROR if in_gradients else WARNING,
            _RUNG,
            f"the learning rate has come down from {curve.peak:.3g} to {last:.3g} after {settled} of {updates} "
            f"updates, and stays there{f': it counts the {each} gradients of each update' if in_gradients else ''}",
            {"settled": settled, "updates": updates, "gradients": each},
            "let the schedule count updates, and last for all of them",
            place(_line(script)),
        )
    ]


def _unheard(script: CapturedScript, curve: RateCurve) -> Iterator[Finding]:
    told = [update.meant for update in script.loop.seen.updates if update.meant is not None]
    constant = not LIMITS.same.above(curve.peak / max(min(curve.rates), 1e-30))
    # A rate of 1 leaves the gradients to be scaled by hand, and of two optimisers the other may be meant.
    if not constant or curve.peak == 1.0 or script.loop.seen.shared or not LIMITS.enough.above(len(told)):
        return
    low, high = min(told), max(told)
    if high > 0 and LIMITS.apart.above(high / max(low, 1e-30)):
        yield Finding(
            "schedule-out-of-step",
            ERROR
            if adams(script.loop.first_optimizer)
            else WARNING,  # others can be had by scaling gradients
            _RUNG,
            f"the script computes learning rates from {low:.3g} to {high:.3g}, and its optimiser stays at "
            f"{curve.peak:.3g} in all {len(curve.rates)} updates",
            {"lowest": low, "highest": high, "rate": curve.peak, "updates": len(curve.rates)},
            "set optimizer.learning_rate to it before each update, or hand the schedule to the optimiser",
            place(_line(script)),
        )


def _line(script: CapturedScript) -> Line | None:
    """Where the rate is set, or else the update."""
    lines = [line for line in (*script.loop.seen.gradient[::-1], script.loop.seen.updates[0].line) if line]
    for line in lines:
        for node in ast.walk(parsed(line.file)):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Attribute) and t.attr == "learning_rate" for t in targets):
                return Line(line.file, node.lineno, line.function)
    return lines[-1]


def _computed(script: CapturedScript) -> Place | None:
    """Where the script's own function ends that the rate is set to, if there is one."""
    where = _line(script)
    nodes = list(ast.walk(parsed(where.file)))
    told = [n.value for n in nodes if isinstance(n, ast.Assign) and n.lineno == where.line]
    names = {getattr(value.func, "id", "") for value in told if isinstance(value, ast.Call)}
    lines = [n.end_lineno for n in nodes if isinstance(n, ast.FunctionDef) and n.name in names]
    return Place.at(where.file, lines[0]) if lines else None
