"""One row asked again: a second time, elsewhere in a batch, cut short, and in another model with the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import full_precision, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.random_arrays import random_arrays
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.ladder.modes import in_mode
from mlxstories.trees import by_path

_ODD = (2, 3, 5, 7, 11, 13)  # a single token is what a decoding step looks like: that is asked there

_GRAIN, _DRAWS = 1e-5, 3  # of the weights
_BENT, _SEEN = 0.3, 1e-4  # of what moves, of the logits' spread


@dataclass(frozen=True)
class Plain:
    """A model with noise on its weights in evaluation mode, and what it says of one row.

    Attributes:
        parameters: of the model.
        row: ids [1, T].
        logits: [T, V], under the seed 1.
        spread: their standard deviation.
        full_precision: whether no weight has 16 bits, and nothing is rounded inside.
    """

    parameters: dict
    row: np.ndarray
    logits: np.ndarray
    spread: float
    full_precision: bool


@dataclass(frozen=True)
class Change:
    """The largest change of a row's logits, and the typical one over its positions, in units of their spread."""

    largest: float = 0.0
    typical: float = 0.0

    def judged(self, full_precision: bool) -> float:
        """The largest change; with 16 bits, which may send a few tokens to other experts, the typical one."""
        return self.largest if full_precision else self.typical


@dataclass(frozen=True)
class Repeats:
    """The same row in the same model again.

    Attributes:
        same_seed: after the same seed.
        other_seed: after another seed.
        full_precision: see `Plain`.
    """

    same_seed: Change
    other_seed: Change
    full_precision: bool


@dataclass(frozen=True)
class Places:
    """A row among four, in two places of the batch, against the row alone.

    Attributes:
        alone: of the row as number 1 of the batch against the row alone.
        last: of the row as the last of the batch against number 1.
        full_precision: see `Plain`.
    """

    alone: Change
    last: Change
    full_precision: bool


@dataclass(frozen=True)
class Lengths:
    """Prefixes of a row alone against the row's own logits.

    Attributes:
        by_length: length to the change.
        refused: lengths that the model does not take.
        full: length of the row.
        full_precision: see `Plain`.
    """

    by_length: dict[int, Change]
    refused: list[int]
    full: int
    full_precision: bool


def ask(bench: Bench, model: nn.Module, tokens: np.ndarray, seed: int = 1) -> np.ndarray:
    """Logits [B, T, V] in evaluation mode."""
    bench.seed_all(seed)
    with in_mode(model, training=False):
        return np.array(bench.logits(model, np.maximum(tokens, 0)))


@measurement
def rounds_inside(bench: Bench) -> bool:
    """Whether the model rounds what it computes, to 8 bits for instance: the last bit of a sum, which may differ from
    one shape to another, then decides about a whole rounding step. Ten times a very small change of its weights moves
    the logits of any other model ten times as far."""
    model, row = bench.noisy(0), sample(bench).inputs[:1]
    weights = {n: a for n, a in by_path(model.parameters()).items() if a.dtype == mx.float32}
    first, again = ask(bench, model, row), ask(bench, model, row)
    if not np.array_equal(first, again):
        return False
    for draw in range(_DRAWS):
        rng = np.random.default_rng((bench.seed, draw))
        noise = {n: a * mx.array(rng.standard_normal(a.shape, np.float32)) for n, a in weights.items()}
        little, more = (
            _moved_by(bench, model, weights, noise, grain, row) - first for grain in (_GRAIN, 10 * _GRAIN)
        )
        bent = np.abs(more - 10 * little).max()
        if bent > _BENT * np.abs(more).max() and bent > _SEEN * first.std():
            return True
    return False


def _moved_by(
    bench: Bench, model: nn.Module, weights: dict, noise: dict, grain: float, row: np.ndarray
) -> np.ndarray:
    put(model, {name: array + grain * noise[name] for name, array in weights.items()})
    return ask(bench, model, row)


@measurement
def plain(bench: Bench) -> Plain:
    """Show a model with noise on its weights one row; zero-initialised weights would hide what is asked."""
    model, row = bench.noisy(0), sample(bench).inputs[:1]
    logits = ask(bench, model, row)[0]
    full = full_precision(model.parameters()) and not rounds_inside(bench)
    with np.errstate(invalid="ignore"):  # logits that are not finite are another check's finding
        spread = float(logits.std()) or 1.0
    return Plain(model.parameters(), row, logits, spread, full)


def noised(bench: Bench) -> nn.Module:
    """The model of `plain` again: a subject may return one object, which other measurements have changed since."""
    return _filled(bench.model(), plain(bench))


def _filled(model: nn.Module, source: Plain) -> nn.Module:
    model.update(source.parameters)
    return model


def change_of(plain: Plain, logits: np.ndarray, reference: np.ndarray) -> Change:
    """How far logits [T, V] are from the ones they are compared with."""
    moved = np.abs(logits - reference).max(-1) / plain.spread
    return Change(float(moved.max()), float(np.median(moved)))


@measurement
def repeats(bench: Bench) -> Repeats:
    """Show the same model the same row twice more."""
    first, model = plain(bench), noised(bench)
    same, other = (ask(bench, model, first.row, seed)[0] for seed in (1, 2))
    return Repeats(
        change_of(first, same, first.logits), change_of(first, other, first.logits), first.full_precision
    )


@measurement
def places(bench: Bench) -> Places:
    """Show the row alone, as number 1 of four rows and as the last of them."""
    first, mate = plain(bench), sample(bench).inputs[-1:]
    answers = ask(bench, noised(bench), np.concatenate([mate, first.row, mate, first.row]))
    alone, last = change_of(first, answers[1], first.logits), change_of(first, answers[3], answers[1])
    return Places(alone, last, first.full_precision)


@measurement
def lengths(bench: Bench) -> Lengths:
    """Show prefixes of the row alone, short and long ones, odd and even, and look at the places that count."""
    first, model = plain(bench), noised(bench)
    asked = sample(bench).mask[0] > 0
    full = first.row.shape[1]
    wanted = {n for n in (*_ODD, full // 2, full // 2 + 1, full - 2, full - 1) if 0 < n < full}
    found: dict[int, Change] = {}
    refused = []
    for length in sorted(wanted):
        try:
            answer = ask(bench, model, first.row[:, :length])[0]
        except SubjectFault:
            refused.append(length)
        else:
            if (here := asked[:length]).any():
                found[length] = change_of(first, answer[here], first.logits[:length][here])
    return Lengths(found, refused, full, first.full_precision)


def short(bench: Bench, rows: slice | np.ndarray, length: int) -> HostBatch:
    """These rows of the sample cut to a length, or whole where the model takes rows of one length only."""
    taken, whole = lengths(bench), sample(bench).rows(rows)
    return whole.cut(length) if taken.by_length or not taken.refused else whole


@measurement
def transplanted(bench: Bench) -> tuple[Change, bool] | None:
    """How the logits of a fresh model differ once it has all parameters of another, drawn after another seed; and
    whether all is of full precision. None where the subject returns one model, or copies of it, or models of different
    shapes."""
    first, fresh = plain(bench), random_arrays(bench)
    if fresh is None or fresh.others.isdisjoint(_shapes(first.parameters)):
        return None
    other = bench.model(bench.seed + 1)
    if _shapes(other.parameters()) != _shapes(first.parameters):
        return None
    answer = ask(bench, _filled(other, first), first.row)[0]
    return change_of(first, answer, first.logits), first.full_precision


def _shapes(parameters: dict) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in by_path(parameters).items()}
