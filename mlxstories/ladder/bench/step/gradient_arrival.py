"""The gradient that reaches the optimiser, against that of the loss on the same batch and with the same weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.arrays import Arrays, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.samples import probe_batch
from mlxstories.ladder.bench.step.adam import adams
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.bench.step.received_gradient import loss_gradient, watched_step
from mlxstories.trees import by_path

_BATCHES = 2
_SAME = 1e-4  # relative difference by rounding
_ENTRIES = 8  # fewest, of gradients that may be copies of one
_PARALLEL = 1e-6  # how far the cosine of such is from 1, at most
_PART = 4.0  # entries that must contribute to its length
_CALLS = 16  # of a step that updates only every so many calls
_INDIFFERENT = ("adam", "lion", "muon", "adafactor", "rmsprop", "adagrad")


@dataclass(frozen=True)
class Arrival:
    """One step with a fresh model and optimiser.

    Attributes:
        own, returned: the subject's loss by our call, and the one that the step returned.
        direction: cosine of the two gradients, a mean over tensors weighted by the loss's squared gradient; weight
            decay that was added to the gradient is removed.
        signs: share of the loss's gradient, by squares, that arrives with its sign.
        ratio: norm of what arrives over that of the loss's gradient.
        norm: of what arrives.
        calls: until the first update.
        again: norm of what arrives at the next update, weights put back, over the first.
        silent: parameters whose gradient is 0 throughout where it arrives, and not where the loss is.
    """

    own: float
    returned: float
    direction: float
    signs: float
    ratio: float
    norm: float
    calls: int
    again: float
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GradientArrival:
    """Steps on several batches, and whether the optimiser's update depends on the size of gradients, as Adam's does
    where they are below its epsilon."""

    steps: tuple[Arrival, ...]
    heeds_size: bool

    @property
    def silent(self) -> frozenset[str]:
        """Parameters whose gradient is not 0 and arrives as 0 in every step."""
        return frozenset.intersection(*(step.silent for step in self.steps))


@measurement
def gradient_arrival(bench: Bench) -> GradientArrival | str:
    """Compare the gradients, dropout off; a reason where they cannot be read, or are random."""
    steps = []
    for index in range(_BATCHES):
        batch = probe_batch(bench, index)
        arrival = _arrival(bench, batch, again=not index)
        if isinstance(arrival, str):
            return arrival
        steps.append(arrival)
    kinds = [type(part).__name__.lower() for part in parts(bench.optimizer())]
    heeds = not any(name in kind for kind in kinds for name in _INDIFFERENT)
    return GradientArrival(tuple(steps), heeds or _below_epsilon(bench, steps))


def _below_epsilon(bench: Bench, steps: list[Arrival]) -> bool:
    """Whether the root mean square of what arrives lies below an Adam's epsilon."""
    sizes = [a.size for a in by_path(bench.model().trainable_parameters()).values()]
    entry = max(step.norm for step in steps) / max(1, sum(sizes)) ** 0.5
    return any(entry < float(getattr(adam, "eps", 0.0)) for adam in adams(bench.optimizer()))


@dataclass(frozen=True)
class _Run:
    """Calls of the step on one batch, the weights put back after each."""

    own: float
    gradient: Arrays
    weights: Arrays
    returned: list[float]
    received: list[Arrays]
    calls: int


def _run(bench: Bench, batch: HostBatch, seed: int, updates: int) -> _Run | None:
    model, optimizer = bench.model(), bench.optimizer()
    model.eval()  # dropout would differ between the two
    bench.seed_all(seed)
    own, gradient = loss_gradient(bench, model, batch)
    weights = by_path(model.parameters())
    returned, received, calls = [], [], 0
    for call in range(_CALLS):
        bench.seed_all(seed + call)
        loss, seen = watched_step(bench, model, optimizer, batch)
        put(model, weights)
        if seen:
            returned.append(loss)
            received.append(seen)
            calls = calls or call + 1
        if len(received) == updates:
            break
    return _Run(own, gradient, weights, returned, received, calls) if received else None


@measurement
def first_run(bench: Bench) -> _Run | None:
    """The run on the first batch."""
    return _run(bench, probe_batch(bench, 0), 1, 2)


@measurement
def replicas(bench: Bench) -> dict[tuple[str, str], float]:
    """Pairs of parameters whose paths differ in one number and whose gradients, as they arrive, point exactly the same
    way: the ratio of their lengths. Only copies of one weight on several ranks do."""
    run = first_run(bench)
    if run is None:
        return {}
    by_place: dict[str, list[str]] = {}
    for name, array in run.received[0].items():
        if array.size >= _ENTRIES:
            for number in re.finditer(r"(?<=\.)\d+(?=\.)", name):
                by_place.setdefault(f"{name[: number.start()]}#{name[number.end() :]}", []).append(name)
    found = {}
    for names in by_place.values():
        for one, other in pairwise(names):
            a, b = (_flat(run.received[0][n]) for n in (one, other))
            if a.shape == b.shape and min(_taking_part(a), _taking_part(b)) > _PART:
                sizes = np.linalg.norm(a), np.linalg.norm(b)
                if float(a @ b) > (1 - _PARALLEL) * sizes[0] * sizes[1]:
                    found[one, other] = float(sizes[0] / sizes[1])
    return found


def _taking_part(array: np.ndarray) -> float:
    """How many entries make up an array's length: where it is one alone, two arrays point the same way by chance.

    The participation ratio, (sum a^2)^2 / sum a^4.
    """
    squares = array.astype(np.float64) ** 2
    squares = squares / max(squares.max(), 1e-300)
    return float(squares.sum() ** 2 / max((squares**2).sum(), 1e-300))


def _arrival(bench: Bench, batch: HostBatch, *, again: bool) -> Arrival | str:
    run = first_run(bench) if again else _run(bench, batch, 1, 2)
    other = _run(bench, batch, 2, 1) if again else run
    if run is None or other is None:
        return "the gradients that reach the optimiser cannot be read"
    if abs(run.own - other.own) > _SAME * max(1.0, abs(run.own)) or _differ(
        run.received[0], other.received[0]
    ):
        return "the step is random even with dropout off"
    received = run.received[0]
    norm, size = _norm(received), _norm({n: g for n, g in run.gradient.items() if n in received})
    if not np.isfinite([run.own, run.returned[0], norm, size]).all() or not size:
        return "the gradient is 0 or not finite"
    direction, signs, silent = _direction(run.gradient, received, run.weights)
    growth = _norm(run.received[-1]) / max(norm, 1e-30)
    return Arrival(run.own, run.returned[0], direction, signs, norm / size, norm, run.calls, growth, silent)


def _direction(own: Arrays, received: Arrays, weights: Arrays) -> tuple[float, float, frozenset[str]]:
    aligned = agreeing = total = 0.0
    silent = set()
    for name, array in own.items():
        if name not in received:
            continue
        wanted, got = (_flat(a) for a in (array, received[name]))
        size = float(wanted @ wanted)
        if not size:
            continue
        if not got.any():
            silent.add(name)  # left out by the step, which is another question
            continue
        total += size
        aligned += size * _cosine(wanted, got, _flat(weights[name]))
        agreeing += float(wanted @ np.where(np.sign(wanted) == np.sign(got), wanted, 0))
    total = total or 1.0
    return aligned / total, agreeing / total, frozenset(silent)


def _cosine(wanted: np.ndarray, got: np.ndarray, weight: np.ndarray) -> float:
    """Cosine of both, without the part of ``got`` that is decay of the weights; a mask's infinities do not decay."""
    weight = np.where(np.isfinite(weight), weight, 0.0)
    if weight @ weight > 0 and got.size > 2:
        parts, *_ = np.linalg.lstsq(np.stack([wanted, weight], axis=1), got, rcond=None)
        got = got - parts[1] * weight if parts[1] > 0 else got
    return float(wanted @ got / max(np.linalg.norm(wanted) * np.linalg.norm(got), 1e-30))


def _flat(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32)).ravel().astype(np.float64)


def _norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(float(_flat(a) @ _flat(a)) for a in arrays.values())))


def _differ(one: Arrays, other: Arrays) -> bool:
    """Whether two gradients differ by more than rounding."""
    return one.keys() != other.keys() or distance(one, other) > _SAME


def distance(one: Arrays, other: Arrays) -> float:
    """How far two gradients of the same parameters are apart, over the length of the first."""
    apart = _norm({n: one[n].astype(mx.float32) - other[n].astype(mx.float32) for n in one})
    return apart / max(_norm(one), 1e-30)


@measurement
def loss_factors(bench: Bench) -> tuple[float, float] | None:
    """What the step returns over the subject's loss, on a small batch and on one of the full size."""
    factors = []
    full = train_epoch(bench).batches[0]
    for batch in (probe_batch(bench, 0), full.cut(probe_batch(bench, 0).shape[1])):
        model, optimizer = bench.model(), bench.optimizer()
        model.eval()
        bench.seed_all(1)
        with bench.calling("loss"):
            own = float(bench.loss(model, batch))
        bench.seed_all(1)
        factors.append(bench.step(model, optimizer, batch) / own if own else np.nan)
    return tuple(factors) if np.isfinite(factors).all() else None
