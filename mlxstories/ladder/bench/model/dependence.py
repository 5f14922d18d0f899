"""Black-box tests of what each position's logits depend on: later tokens, other rows, its own past and order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import full_precision, token_losses
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import rounds_inside, short
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.modes import in_mode

AT_FIRST, NOISY, TRAINING = "at initialisation", "with noise on the weights", "in training mode"

_ROWS = 8  # that a row's mates are taken from
# by full precision: rows that move each other by less share a forward pass
_APART = {True: 2e-5, False: 2e-2}
_ROUNDED = 1e-6  # of the change: less is none
_LOUD = 8.0  # times the noise that usually is enough


@dataclass(frozen=True)
class Dependence:
    """What was found of one model.

    Attributes:
        future: largest change, before a changed suffix, of a logit that counts, relative to the change after it.
        future_at: (position read, first position changed) of that change.
        rows: largest change of a row's logits when other rows change, relative to the change of those rows.
        own: change of the last logits that count when their own token changes, relative to the logits' spread.
        past: the same when all earlier tokens change.
        order: the same when earlier tokens are reordered.
        repeatable: whether the same input gives the same logits twice.
        full_precision: whether no weight has 16 bits, with which rounding is a thousand times as coarse, and nothing is
            rounded inside.
    """

    future: float
    future_at: tuple[int, int] | None
    rows: float
    own: float
    past: float
    order: float
    repeatable: bool
    full_precision: bool


class _Probe:
    """Forward passes of one model over tokens that are changed."""

    def __init__(self, bench: Bench, model: nn.Module, seed: int):
        self.bench, self.model, self.seed = bench, model, seed
        self.rng = np.random.default_rng((bench.seed, seed))
        self.base = sample(bench).inputs[:_ROWS]
        # A full-length row keeps padding and separators out of the way of the question.
        number = int(self.rng.integers(min(len(self.base), 4)))
        self.row = self.base[number][None]
        # What is given may see what is given behind it, in a model that is asked for the rest alone; and what comes
        # after all that is asked for, as padding does, may see nothing.
        counts = sample(bench).mask[:_ROWS] > 0
        counts[~counts.any(1)] = True
        self.asked = counts[number]
        self.ends = [int(np.flatnonzero(row)[-1]) for row in counts]
        self.end = self.ends[number]

    def forward(self, tokens: np.ndarray) -> np.ndarray:
        self.bench.seed_all(self.seed)  # the same dropout for the same shapes
        return np.array(self.bench.logits(self.model, np.maximum(tokens, 0)))

    def other(self, tokens: np.ndarray) -> np.ndarray:
        return different(self.bench, tokens, self.rng)


def dependence(bench: Bench, model: nn.Module, *, seed: int, training: bool = False) -> Dependence:
    """Change tokens and see which logits move, in evaluation mode unless ``training``."""
    probe = _Probe(bench, model, seed)
    full = full_precision(model.parameters()) and not rounds_inside(bench)
    with in_mode(model, training=training):
        plain = probe.forward(probe.row)
        repeatable = bool(np.array_equal(plain, probe.forward(probe.row), equal_nan=True))
        spread = float(plain.std()) or 1.0
        rows = _row_leak(probe)
        cuts = _cut_points(probe.row.shape[1], probe.rng)
        together = rows <= _APART[full] and not training  # dropout would differ between rows
        moved = _moved(probe, cuts, plain, together)
        future, where = _future(moved, cuts, spread, probe.asked)
        # the rows of a batch are not all rounded alike, a row alone always is
        if together and future > _ROUNDED:
            moved = _moved(probe, cuts, plain, together=False)
            future, where = _future(moved, cuts, spread, probe.asked)
        own = float(moved[-2, probe.end]) / spread
        past = float(moved[-1, probe.end]) / spread if probe.end else np.inf
        order = _order(probe, spread)
    return Dependence(future, where, rows, own, past, order, repeatable, full)


def _moved(probe: _Probe, cuts: list[int], plain: np.ndarray, together: bool) -> np.ndarray:
    """Largest change of the logits at each position, [cuts + 2, T]: with a new suffix from each cut on, with a new
    token at the end, and with all tokens before it new."""
    row, other, end = probe.row, probe.other, probe.end
    changed = np.repeat(row, len(cuts) + 2, axis=0)
    for line, cut in zip(changed, cuts, strict=False):
        line[cut:] = other(row[0, cut:])
    changed[-2, end : end + 1] = other(row[0, end : end + 1])
    changed[-1, :end] = other(row[0, :end])
    if together:
        answers = probe.forward(np.concatenate([row, changed]))
        plain, answers = answers[:1], answers[1:]
    else:
        answers = np.concatenate([probe.forward(line[None]) for line in changed])
    return np.abs(answers - plain).max(-1)


def _future(
    moved: np.ndarray, cuts: list[int], spread: float, asked: np.ndarray
) -> tuple[float, tuple[int, int] | None]:
    future, where = 0.0, None
    for line, cut in zip(moved, cuts, strict=False):
        before = np.where(asked[:cut], line[:cut], 0.0)
        leak = float(before.max()) / max(float(line[cut:].max()), 1e-3 * spread)
        if leak > future:
            future, where = leak, (int(before.argmax()), int(cut))
    return future, where


def _row_leak(probe: _Probe) -> float:
    row, base, other = probe.row, probe.base, probe.other
    mates = [base[i : i + 1] for i in range(len(base)) if not np.array_equal(base[i : i + 1], row)]
    mate = mates[0] if mates else other(row)
    # In the middle, for attention over the batch may be causal too.
    first = probe.forward(np.concatenate([mate, row, mate]))
    second = probe.forward(np.concatenate([other(mate), row, other(mate)]))
    moved = float(np.abs(second[::2] - first[::2]).max())
    return float(np.abs(second[1] - first[1]).max()) / max(moved, 1e-3 * float(first.std()), 1e-30)


def _order(probe: _Probe, spread: float) -> float:
    moved = 0.0
    for row, end in list(zip(probe.base, probe.ends, strict=True))[:2]:
        row = row[None]
        if end < 3:
            return float("inf")
        # Short reach (convolutions, windows) and long: reorder the three tokens before the last, then all.
        plain = probe.forward(row)[0, end]
        for start in (end - 3, 0):
            mixed = row.copy()
            mixed[0, start:end] = _reordered(mixed[0, start:end], probe.rng)
            moved = max(moved, float(np.abs(probe.forward(mixed)[0, end] - plain).max()) / spread)
    return moved


def _reordered(part: np.ndarray, rng) -> np.ndarray:
    for _ in range(8):
        order = rng.permutation(len(part))
        if (part[order] != part).any():
            break
    return part[order]


def _cut_points(length: int, rng) -> list[int]:
    wanted = {1, length // 4 + 1, length // 2, length // 2 + 1, 3 * length // 4 + 3, length - 1}
    wanted |= {int(rng.integers(1, max(2, length)))}
    return sorted(c for c in wanted if 0 < c < length)


def different(bench: Bench, tokens: np.ndarray, rng) -> np.ndarray:
    """Other tokens of the same shape, from among the subject's own, each different from the one that it replaces."""
    drawn = rng.choice(np.unique(np.maximum(sample(bench).inputs, 0)), size=tokens.shape)
    return np.where(drawn == tokens, (drawn + 1) % bench.subject.vocab_size, drawn)


@measurement
def views(bench: Bench) -> list[tuple[str, Dependence]]:
    """The untrained model as it is, with noise on its weights, and in training mode (not before a training)."""
    quick = bench.width is not None
    found = [(AT_FIRST, dependence(bench, bench.model(), seed=1))]
    # Zero-initialised projections hide a leak, and make healthy models look blind, until they are moved.
    for seed in range(1 if quick else 2):
        noisy = bench.noisy(seed)
        found.append((NOISY, dependence(bench, noisy, seed=2 + seed)))
    if not quick:
        found.append((TRAINING, dependence(bench, noisy, seed=1, training=True)))
    return found


@dataclass(frozen=True)
class Reach:
    """The most that the last logits move, over models with noise on their weights; see `Dependence`."""

    own: float
    past: float
    order: float


@measurement
def reach(bench: Bench) -> Reach | None:
    """What of its input the architecture can see; None where its logits never repeat."""
    seen = [view for name, view in views(bench) if name == NOISY]
    if _anything_frozen(bench.model()):
        # Frozen zeros hide what the architecture could see; that they are frozen is another question.
        seen.append(dependence(bench, bench.noisy(0, frozen=True), seed=2))
    seen = [view for view in seen if view.repeatable]
    if not seen:
        return None
    return Reach(*(max(getattr(view, name) for view in seen) for name in ("own", "past", "order")))


def _anything_frozen(model: nn.Module) -> bool:
    return len(tree_flatten(model.parameters())) > len(tree_flatten(model.trainable_parameters()))


@measurement
def loud_view(bench: Bench) -> Dependence:
    """The model with noise that drowns its own weights; the change is infinite where it overflows."""
    view = dependence(bench, bench.noisy(21, amount=_LOUD), seed=5)
    own, past = (np.inf if np.isnan(value) else value for value in (view.own, view.past))
    return replace(view, own=own, past=past)


def dependence_matrix(bench: Bench, model: nn.Module, size: int = 16) -> list[list[float]]:
    """Which position sees which: at [reader][changed] the change of the reader's logits, each row relative to its
    largest."""
    row = short(bench, slice(1), size).inputs
    rng = np.random.default_rng((bench.seed, 5))
    columns = []
    with in_mode(model, training=False):
        plain = np.array(bench.logits(model, row))
        for position in range(min(size, row.shape[1])):
            changed = row.copy()
            changed[:, position] = different(bench, row[:, position], rng)
            columns.append(np.abs(np.array(bench.logits(model, changed)) - plain).max(-1)[0, :size])
    table = np.stack(columns, axis=1)
    return (table / max(float(table.max()), 1e-30)).tolist()


def harm(bench: Bench, model: nn.Module) -> float:
    """Nats per token that a model gains on real rows from seeing what follows: the loss with the true suffix
    against the loss with other suffixes, at each cut's last prefix position."""
    rng = np.random.default_rng((bench.seed, 9))
    batch = sample(bench).rows(slice(0, min(4, sample(bench).shape[0])))
    device = batch.device()
    plain, _ = token_losses(bench.logits(model, device.inputs), device.targets)
    gains = []
    for cut in _cut_points(batch.shape[1], rng)[1:]:
        changed = batch.inputs.copy()
        changed[:, cut:] = different(bench, changed[:, cut:], rng)
        other, _ = token_losses(bench.logits(model, np.maximum(changed, 0)), device.targets)
        gains.append(float((other - plain)[:, cut - 1].mean()))
    return float(np.mean(gains)) if gains else 0.0
