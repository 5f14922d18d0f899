"""Black-box tests of what each position's logits depend on: later tokens, other rows, its own past and order."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.examination import Examination, token_losses

_CUTS = 6


@dataclass(frozen=True)
class Dependence:
    """What was found of one model.

    Attributes:
        future: largest change of a logit before a changed suffix, relative to the change after it.
        future_at: (position read, first position changed) of that change.
        rows: largest change of a row's logits when other rows change, relative to the change of those rows.
        own: change of the last logits when the last token changes, relative to the logits' spread.
        past: the same when all earlier tokens change.
        order: the same when earlier tokens are reordered.
        repeatable: whether the same input gives the same logits twice.
        tolerance: relative change that rounding alone may cause.
    """

    future: float
    future_at: tuple[int, int] | None
    rows: float
    own: float
    past: float
    order: float
    repeatable: bool
    tolerance: float


def dependence(exam: Examination, model: nn.Module, *, seed: int, training: bool = False) -> Dependence:
    """Change tokens and see which logits move, in evaluation mode unless ``training``."""
    rng = np.random.default_rng((exam.seed, seed))
    base = exam.sample.inputs[: 8 if exam.sample.shape[0] >= 8 else exam.sample.shape[0]]
    # A full-length row keeps padding and separators out of the way of the question.
    row = base[int(rng.integers(min(len(base), 4)))][None]
    length = row.shape[1]
    mode = model.training
    model.train(training)

    def forward(tokens: np.ndarray) -> np.ndarray:
        exam.seed_all(seed)  # the same dropout for the same shapes
        return np.array(exam.logits(model, np.maximum(tokens, 0)))

    def other(tokens: np.ndarray) -> np.ndarray:
        return _different(tokens, exam.sample.inputs, exam.subject.vocab_size, rng)

    try:
        plain = forward(row)
        repeatable = bool(np.array_equal(plain, forward(row), equal_nan=True))
        spread = float(plain.std()) or 1.0
        tolerance = 2e-5 if _full_precision(model, exam) else 2e-2
        rows = _row_leak(forward, row, base, other)
        cuts = _cut_points(length, rng)
        changed = np.repeat(row, len(cuts) + 2, axis=0)
        for line, cut in zip(changed, cuts, strict=False):
            line[cut:] = other(row[0, cut:])
        changed[-2, -1:] = other(row[0, -1:])
        changed[-1, :-1] = other(row[0, :-1])
        if rows <= tolerance and not training:  # all in one pass; dropout would differ between rows
            answers = forward(np.concatenate([row, changed]))
            plain, answers = answers[:1], answers[1:]
        else:
            answers = np.concatenate([forward(line[None]) for line in changed])
        moved = np.abs(answers - plain).max(-1)
        future, where = 0.0, None
        for line, cut in zip(moved, cuts, strict=False):
            leak = float(line[:cut].max()) / max(float(line[cut:].max()), 1e-3 * spread)
            if leak > future:
                future, where = leak, (int(line[:cut].argmax()), int(cut))
        own = float(moved[-2, -1]) / spread
        past = float(moved[-1, -1]) / spread if length > 1 else np.inf
        order = _order(forward, exam, spread, rng)
    finally:
        model.train(mode)
    return Dependence(future, where, rows, own, past, order, repeatable, tolerance)


def loss_sees_future(exam: Examination, model: nn.Module) -> float | None:
    """How much the subject's loss over a prefix moves when inputs after the prefix change, relative to how much
    it moves when the prefix changes; None where the loss does not heed the mask."""
    batch = exam.sample.rows(slice(0, min(2, exam.sample.shape[0])))
    if not batch.masked or batch.shape[1] < 4:
        return None
    rng = np.random.default_rng((exam.seed, 11))
    cut = batch.shape[1] // 2
    mask = np.zeros_like(batch.mask)
    mask[:, : cut - 1] = 1
    suffix, prefix, targets = batch.inputs.copy(), batch.inputs.copy(), batch.targets.copy()
    size, pool = exam.subject.vocab_size, exam.sample.inputs
    suffix[:, cut:] = _different(suffix[:, cut:], pool, size, rng)
    prefix[:, :cut] = _different(prefix[:, :cut], pool, size, rng)
    targets[:, cut:] = _different(targets[:, cut:], pool, size, rng)
    mode = model.training
    model.eval()

    def value(**changes) -> float:
        exam.seed_all(exam.seed)
        with exam.calling("loss"):
            return float(exam.loss(model, batch.with_(mask=mask, **changes)))

    try:
        plain = value()
        if abs(value(targets=targets) - plain) > 1e-6 * max(1.0, abs(plain)):
            return None
        scale = abs(value(inputs=prefix) - plain)
        moved = abs(value(inputs=suffix) - plain)
    finally:
        model.train(mode)
    return moved / scale if scale > 1e-6 * max(1.0, abs(plain)) else None


def matrix(exam: Examination, model: nn.Module, size: int = 16) -> list[list[float]]:
    """Which position sees which: [reader][changed], each row of logits' change relative to the largest."""
    row = exam.sample.inputs[:1, :size]
    rng = np.random.default_rng((exam.seed, 5))
    mode = model.training
    model.eval()
    plain = np.array(exam.logits(model, row))
    columns = []
    for position in range(row.shape[1]):
        changed = row.copy()
        changed[:, position] = _different(row[:, position], exam.sample.inputs, exam.subject.vocab_size, rng)
        columns.append(np.abs(np.array(exam.logits(model, changed)) - plain).max(-1)[0])
    model.train(mode)
    table = np.stack(columns, axis=1)
    return (table / max(float(table.max()), 1e-30)).tolist()


def _row_leak(forward, row, base, other) -> float:
    mates = [base[i : i + 1] for i in range(len(base)) if not np.array_equal(base[i : i + 1], row)]
    mate = mates[0] if mates else other(row)
    # In the middle, for attention over the batch may be causal too.
    first = forward(np.concatenate([mate, row, mate]))
    second = forward(np.concatenate([other(mate), row, other(mate)]))
    moved = float(np.abs(second[::2] - first[::2]).max())
    return float(np.abs(second[1] - first[1]).max()) / max(moved, 1e-3 * float(first.std()), 1e-30)


def _order(forward, exam: Examination, spread: float, rng) -> float:
    moved = 0.0
    for row in exam.sample.inputs[:2]:
        row = row[None]
        length = row.shape[1]
        if length < 4:
            return float("inf")
        # Short reach (convolutions, windows) and long: reorder the three tokens before the last, then all.
        plain = forward(row)[0, -1]
        for start in (max(0, length - 4), 0):
            mixed = row.copy()
            part = mixed[0, start:-1]
            for _ in range(8):
                order = rng.permutation(len(part))
                if (part[order] != part).any():
                    break
            mixed[0, start:-1] = part[order]
            moved = max(moved, float(np.abs(forward(mixed)[0, -1] - plain).max()) / spread)
    return moved


def _cut_points(length: int, rng) -> list[int]:
    wanted = {1, length // 4 + 1, length // 2, length // 2 + 1, 3 * length // 4 + 3, length - 1}
    wanted |= {int(rng.integers(1, max(2, length)))}
    return sorted(c for c in wanted if 0 < c < length)


def _different(tokens: np.ndarray, pool: np.ndarray, size: int, rng) -> np.ndarray:
    """Other tokens of the same shape, drawn from ``pool``, every one different from the one it replaces."""
    drawn = rng.choice(np.unique(np.maximum(pool, 0)), size=tokens.shape)
    return np.where(drawn == tokens, (drawn + 1) % size, drawn)


def _full_precision(model: nn.Module, exam: Examination) -> bool:
    from mlx.utils import tree_flatten

    return all(a.dtype not in (mx.bfloat16, mx.float16) for _, a in tree_flatten(model.parameters()))


def harm(exam: Examination, model: nn.Module) -> float:
    """Nats per token that a model gains on real rows from seeing what follows: the loss with the true suffix
    against the loss with other suffixes, at each cut's last prefix position."""
    rng = np.random.default_rng((exam.seed, 9))
    batch = exam.sample.rows(slice(0, min(4, exam.sample.shape[0])))
    device = batch.device()
    plain, _ = token_losses(exam.logits(model, device.inputs), device.targets)
    gains = []
    for cut in _cut_points(batch.shape[1], rng)[1:]:
        changed = batch.inputs.copy()
        changed[:, cut:] = _different(changed[:, cut:], exam.sample.inputs, exam.subject.vocab_size, rng)
        other, _ = token_losses(exam.logits(model, np.maximum(changed, 0)), device.targets)
        gains.append(float((other - plain)[:, cut - 1].mean()))
    return float(np.mean(gains)) if gains else 0.0
