"""What the loss asks of logits: which id, how strongly, and how much in all where every id is equally likely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.arrays import Answers
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch
from mlxstories.ladder.bench.loss.convention import first_logits, gradient_at
from mlxstories.ladder.bench.samples import sample

_ROWS, _LENGTH = 4, 64
_RAISED = 5.0  # by which all logits of a place are raised, which changes no probability there
_SURE = 14.0  # by which the logit of a wrong id leads
_CELLS = 16_000_000  # logits of a batch, at most


@dataclass(frozen=True)
class Demands:
    """The gradient at the logits of the cells that count.

    Attributes:
        right: share of these at which the target gets the largest push upwards.
        beside: the commonest distance from the target's id to the one that is pushed, and its share.
        wrong: norm of the gradient where the model is sure of a wrong id, relative to that where it is half sure of the
            right one.
        deeper: share of them at which the wrong id that leads is pushed further up.
        tied: change of the gradient at all other places where the logits of some are raised by one number, relative to
            its norm there.
        read: mean share of the push upwards that goes to the token that was just read, where that is not the target,
            beyond what any other id gets.
        rolled: share of the last places, where that is not the target, at which the first token of the next row is
            pushed up in its stead; 0 where there are fewer than two.
    """

    right: float
    beside: tuple[int, float]
    wrong: float
    deeper: float
    tied: float
    read: float
    rolled: float


@measurement
def demands(bench: Bench) -> Demands | None:
    """Ask the loss, or the step, on a few of the subject's rows; None where it needs more of a model than logits."""
    if bench.minimises_ours:
        return None
    batch = _few(bench)
    plain = _gradient(bench, batch)
    if plain is None:
        return None
    cells = (batch.mask > 0) & (np.abs(plain).max(-1) > 0)
    if not cells.any():
        return None
    targets, pushed = batch.targets[cells], plain.argmin(-1)[cells]
    away, counts = np.unique(pushed - targets, return_counts=True)
    most = int(counts.argmax())
    return Demands(
        float((pushed == targets).mean()),
        (int(away[most]), float(counts[most] / counts.sum())),
        *_where_wrong(bench, batch, cells),
        _tied(bench, batch, plain, cells),
        _for_what_was_read(batch, plain, cells & (batch.inputs != batch.targets)),
        _rolled(batch, plain, cells),
    )


def _for_what_was_read(batch: HostBatch, gradient: np.ndarray, cells: np.ndarray) -> float:
    """Mean share of the inputs in what the gradient pushes up, less the share of any id that is no target."""
    up = np.maximum(-gradient[cells], 0)
    up /= np.maximum(up.sum(-1, keepdims=True), 1e-30)
    if not len(up):
        return 0.0
    read, right = (
        np.take_along_axis(up, np.maximum(ids[cells], 0)[:, None], -1).mean()
        for ids in (batch.inputs, batch.targets)
    )
    return float(read - (1 - right) / (up.shape[-1] - 1))


def _rolled(batch: HostBatch, gradient: np.ndarray, cells: np.ndarray) -> float:
    following = np.roll(batch.inputs[:, 0], -1)
    told_apart = cells[:, -1] & (following != batch.targets[:, -1])
    pushed = gradient[:, -1].argmin(-1)
    return float((pushed == following)[told_apart].mean()) if told_apart.sum() > 1 else 0.0


@dataclass(frozen=True)
class Asked:
    """What the loss asks for where a random id is the target at each place.

    Attributes:
        targets: the ids, of the cells that count.
        pushed: for each the id that the loss's gradient pushes up most.
        real: the targets of the subject's own rows.
    """

    targets: np.ndarray
    pushed: np.ndarray
    real: np.ndarray


@measurement
def asked(bench: Bench) -> Asked | None:
    """Put random ids in the place of a few rows' targets; None where the loss needs more of a model than logits."""
    if bench.minimises_ours:
        return None
    rows, batch = sample(bench), _few(bench)
    rng = np.random.default_rng((bench.seed, 83))
    ids = np.resize(rng.permutation(bench.subject.vocab_size), batch.shape)
    batch = batch.with_(targets=ids.astype(batch.targets.dtype))
    gradient = _gradient(bench, batch)
    if gradient is None:
        return None
    cells = (batch.mask > 0) & (np.abs(gradient).max(-1) > 0)
    return Asked(ids[cells], gradient.argmin(-1)[cells], rows.targets[rows.mask > 0])


def _few(bench: Bench) -> HostBatch:
    """A few of the subject's rows, cut short."""
    return sample(bench).rows(slice(0, _ROWS)).cut(_LENGTH)


def _gradient(bench: Bench, batch: HostBatch, given: np.ndarray | None = None) -> np.ndarray | None:
    """That of `gradient_at`; a loss may draw its cells, the same at each call."""
    bench.seed_all(bench.seed)
    return gradient_at(bench, batch, given)


def _where_wrong(bench: Bench, batch: HostBatch, cells: np.ndarray) -> tuple[float, float]:
    """Norm of the gradient where a wrong id leads by far, relative to that where the target leads a little; and how
    often the wrong id is pushed further up."""
    size = bench.subject.vocab_size
    rng = np.random.default_rng((bench.seed, 79))
    right = np.maximum(batch.targets, 0)
    wrong = (right + rng.integers(1, size, right.shape)) % size
    norms, deeper = [], []
    for leading, lead in ((wrong, _SURE), (right, math.log(size))):
        logits = rng.standard_normal((*batch.shape, size)).astype(np.float32)
        np.put_along_axis(logits, leading[..., None], np.float32(lead), -1)
        gradient = _gradient(bench, batch, logits)
        if gradient is None:
            return math.inf, 0.0
        norms.append(float(np.linalg.norm(gradient[cells])))
        deeper.append(float((np.take_along_axis(gradient, leading[..., None], -1)[cells] < 0).mean()))
    return (norms[0] / norms[1] if norms[1] else math.inf), deeper[0]


def _tied(bench: Bench, batch: HostBatch, plain: np.ndarray, cells: np.ndarray) -> float:
    """How much the gradient at every second place that counts changes with the sum of the logits at the others."""
    others = np.zeros(cells.shape, bool)
    others[cells] = np.arange(cells.sum()) % 2 == 0
    rest = cells & ~others
    raised = first_logits(bench, batch) + np.float32(_RAISED) * others[..., None]
    gradient = _gradient(bench, batch, raised)
    norm = float(np.linalg.norm(plain[rest]))
    if gradient is None or not norm:
        return 0.0
    return float(np.linalg.norm((gradient - plain)[rest])) / norm


@dataclass(frozen=True)
class Uniform:
    """The loss of logits that are all 0, over ln V, of batches of the subject's own; beside the shares of their cells
    that are real, and their numbers of real cells and of rows."""

    losses: list[float]
    shares: list[float]
    counts: list[int]
    rows: list[int]


@measurement
def uniform(bench: Bench) -> Uniform | None:
    """Ask the loss about the batches of most and of fewest real cells, and the first; None where it cannot be asked."""
    if bench.subject.loss is None:
        return None
    batches = sorted(train_epoch(bench).batches, key=lambda batch: float((batch.mask > 0).mean()))
    found = Uniform([], [], [], [])
    for batch in (batches[0], batches[len(batches) // 2], batches[-1]):
        size = (*batch.shape, bench.subject.vocab_size)
        if math.prod(size) > _CELLS:
            return None
        try:
            value = float(bench.loss(Answers(mx.zeros(size)), batch))
        except Exception:  # it needs more of a model than logits
            return None
        found.losses.append(value / math.log(bench.subject.vocab_size))
        found.shares.append(float((batch.mask > 0).mean()))
        found.counts.append(int((batch.mask > 0).sum()))
        found.rows.append(batch.shape[0])
    return found
