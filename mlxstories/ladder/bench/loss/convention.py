"""How a subject's targets say what counts, asked of its loss: ids that it leaves out, labels that it shifts itself."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import SGD

from mlxstories.ladder.bench.arrays import Answers
from mlxstories.ladder.bench.batches import Convention, HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epoch import raw_epoch

_ROWS = 8  # of a batch that the loss is shown
_SAME = 0.9  # of the real cells: the targets are the inputs
_CELLS = 16_000_000  # numbers in a gradient, at most
_CALLS, _EQUAL = 32, 1e-3  # until a step makes an update; of its size, by which two of the same may differ


@measurement
def convention(bench: Bench) -> Convention:
    """What the loss makes of the first batch that could follow another convention than the mask alone."""
    batches = raw_epoch(bench).batches
    copied = _copied(batches[0])
    batch, ignored = next(((b, i) for b in batches if (i := _candidate(b)) is not None), (batches[0], None))
    if not copied and ignored is None:
        return Convention()
    batch = batch.rows(slice(0, _ROWS))
    counted = _counted(bench, batch)
    if counted is None:
        return Convention()
    shifted = copied and _shifts(bench, batch)
    if shifted:  # the logits of each place answer for the target after it
        counted = np.concatenate([np.zeros_like(counted[:, :1]), counted[:, :-1]], axis=1)
    left_out = ignored is not None and _looks_away(batch, counted, ignored)
    return Convention(ignored if left_out else None, shifted)


def _copied(batch: HostBatch) -> bool:
    real = (batch.mask > 0) & (batch.targets >= 0)
    return bool(real.any()) and float((batch.targets == batch.inputs)[real].mean()) > _SAME


def _candidate(batch: HostBatch) -> int | None:
    """An id that the loss may leave out: the lowest, if negative, or the commonest at the ends of rows."""
    real = batch.targets[batch.mask > 0]
    if (real < 0).any():
        return int(real.min())
    ends = batch.targets[:, -1][batch.mask[:, -1] > 0]
    if not len(ends):
        return None
    ids, counts = np.unique(ends, return_counts=True)
    return int(ids[counts.argmax()]) if counts.max() > 1 or len(ends) == 1 else None


def _looks_away(batch: HostBatch, counted: np.ndarray, ignored: int) -> bool:
    real = batch.mask > 0
    here = real & (batch.targets < 0 if ignored < 0 else batch.targets == ignored)
    return bool(here.any() and not counted[here].any() and counted[real & ~here].any())


def _counted(bench: Bench, batch: HostBatch) -> np.ndarray | None:
    """Places [B, T] whose logits the loss, or the step, depends on; None where that cannot be asked."""
    gradient = gradient_at(bench, batch)
    return None if gradient is None else np.abs(gradient).max(-1) > 0


def _shifts(bench: Bench, batch: HostBatch) -> bool:
    """Whether another target at a place changes the gradient at the logits of the place before."""
    places = np.flatnonzero((batch.mask[0] > 0) & (batch.targets[0] >= 0))
    if len(places) < 4:
        return False
    place, targets = int(places[len(places) // 2]), batch.targets.copy()
    targets[0, place] = (targets[0, place] + 1) % bench.subject.vocab_size
    one, other = gradient_at(bench, batch), gradient_at(bench, batch.with_(targets=targets))
    if one is None or other is None:
        return False
    return int(np.abs(one - other).max(-1)[0].argmax()) == place - 1


def gradient_at(bench: Bench, batch: HostBatch, given: np.ndarray | None = None) -> np.ndarray | None:
    """Gradient of the loss with respect to logits [B, T, V], random ones unless given; None where they are too many, or
    the loss needs more of a model than logits."""
    if np.prod((*batch.shape, bench.subject.vocab_size)) > _CELLS:
        return None
    return logit_gradient(bench, batch, first_logits(bench, batch) if given is None else given)


def first_logits(bench: Bench, batch: HostBatch) -> np.ndarray:
    """Random logits [B, T, V], always the same."""
    rng = np.random.default_rng((bench.seed, 73))
    return rng.standard_normal((*batch.shape, bench.subject.vocab_size)).astype(np.float32)


def logit_gradient(bench: Bench, batch: HostBatch, given: np.ndarray) -> np.ndarray | None:
    """Gradient of the loss with respect to these logits [B, T, V]; where only a step is given, from what it does to a
    model of nothing else. None where the loss needs more of a model than logits, or it is not finite, or the step
    collects gradients."""
    logits = mx.array(given)
    model, subject = Answers(logits), bench.subject
    try:
        if subject.loss is not None or subject.train_step is None:
            gradient = nn.value_and_grad(model, lambda m: bench.loss(m, batch))(model)[1]["logits"]
        elif steps_at_each_call(bench):
            subject.train_step(model, SGD(1.0), batch.user())
            gradient = logits - model.logits
        else:
            return None
        gradient = np.array(gradient)
    except Exception:  # it needs more of a model than logits
        return None
    return gradient if np.isfinite(gradient).all() else None


@measurement
def steps_at_each_call(bench: Bench) -> bool:
    """Whether a model that consists of logits takes the same step at each of two calls. A step that accumulates
    gradients is called until it makes its update: the gradients that it accumulates next are another model's."""
    batch = raw_epoch(bench).batches[0]
    if batch.inputs.size * bench.subject.vocab_size > _CELLS:
        batch = batch.rows(slice(0, _ROWS))
    given, moved = mx.array(first_logits(bench, batch)), []
    try:
        while len(moved) < 2 or (len(moved) < _CALLS and not moved[-1].any()):
            model = Answers(given)
            bench.subject.train_step(model, SGD(1.0), batch.user())
            moved.append(np.array(given - model.logits))
    except Exception:  # it needs more of a model than logits
        return False
    apart = np.abs(moved[1] - moved[0]).max()
    return bool(moved[0].any() and apart <= _EQUAL * np.abs(moved[0]).max())
