"""Recover what a loss function computes by feeding it known logits and fitting its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.examination import Examination

_CASES = 10
_FIT = 2e-3  # relative residual of a recovered formula


class Stub(nn.Module):
    """A model whose logits are given."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size
        self.table: dict[bytes, mx.array] = {}
        self._frozen_logits = None

    def show(self, logits: np.ndarray) -> None:
        self._frozen_logits = mx.array(logits)

    def __call__(self, tokens, *_, **__):
        return self._frozen_logits


@dataclass(frozen=True)
class Objective:
    """The formula that explains a loss function's values.

    Attributes:
        sign: +1, or -1 for a loss turned upside down.
        softmaxes: 1, or 2 where the logits went through a softmax before the loss.
        smoothing: of the labels.
        masked: whether masked cells are left out.
        shift: 0, or by how many places targets are shifted against logits inside the loss.
        reduction: ``mean``, ``sum`` or ``mean of all cells``.
        residual: relative misfit.
    """

    sign: int
    softmaxes: int
    smoothing: float
    masked: bool
    shift: int
    reduction: str
    residual: float


def recover(
    exam: Examination,
    loss: Callable[[nn.Module, HostBatch], float],
    *,
    with_mask: bool,
) -> Objective | None:
    """Fit ``loss`` to masked cross-entropies of known logits; None where it is something else."""
    rng = np.random.default_rng((exam.seed, 23))
    form = exam.sample
    rows, length = min(form.shape[0], 4), min(form.shape[1], 24)
    size = exam.subject.vocab_size
    stub = Stub(size)
    cases, values = [], []
    for case in range(_CASES):
        inputs = rng.integers(0, size, (rows, length))
        targets = rng.integers(0, size, (rows, length))
        mask = np.ones((rows, length), np.float32)
        if with_mask:
            kept = rng.integers(length // 3, length, rows)
            mask = (np.arange(length) < kept[:, None]).astype(np.float32)
        scale = 0.5 + 3.0 * rng.random()
        logits = (scale * rng.standard_normal((rows, length, size))).astype(np.float32)
        np.put_along_axis(
            logits,
            targets[..., None],
            np.take_along_axis(logits, targets[..., None], -1) + np.float32(case % 4),
            -1,
        )
        stub.show(logits)
        values.append(loss(stub, form.with_(inputs=inputs, targets=targets, mask=mask)))
        cases.append((logits, inputs, targets, mask))
    return fit(cases, np.array(values, dtype=np.float64))


def fit(cases: list[tuple[np.ndarray, ...]], values: np.ndarray) -> Objective | None:
    """The simplest formula that reproduces ``values`` from (logits, inputs, targets, mask)."""
    if not np.isfinite(values).all() or np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    for softmaxes in (1, 2):
        logs = [log_softmax(case[0], softmaxes) for case in cases]
        for shift in (0, 1, -1, 2):
            for masked in (True, False):
                for reduction in ("mean", "sum", "mean of all cells", "mean of rows"):
                    rows = np.array(
                        [
                            _terms(log, *case[1:], shift, masked, reduction)
                            for log, case in zip(logs, cases, strict=True)
                        ]
                    )
                    solution, *_ = np.linalg.lstsq(rows, values, rcond=None)
                    residual = float(np.abs(rows @ solution - values).max() / np.abs(values).max())
                    if residual < _FIT and abs(solution[0]) > 1e-6:
                        total = float(solution.sum())
                        smoothing = (
                            float(solution[1] / total) if abs(solution[1]) > 5e-3 * abs(total) else 0.0
                        )
                        return Objective(
                            int(np.sign(total)), softmaxes, smoothing, masked, shift, reduction, residual
                        )
    return None


def log_softmax(logits: np.ndarray, times: int) -> np.ndarray:
    logits = logits.astype(np.float64)
    for _ in range(times):
        shifted = logits - logits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        logits = np.exp(logs)
    return logs


def _terms(logs, inputs, targets, mask, shift: int, masked: bool, reduction: str) -> tuple[float, float]:
    """The cross-entropy and the smoothing term (mean over the vocabulary) of one case, reduced."""
    length = logs.shape[1]
    if shift > 0:
        logs, targets, mask = logs[:, : length - shift], targets[:, shift:], mask[:, shift:]
    elif shift < 0:
        logs, targets, mask = logs[:, -shift:], targets[:, : length + shift], mask[:, : length + shift]
    weight = mask if masked else np.ones_like(mask)
    chosen = -np.take_along_axis(logs, targets[..., None], -1)[..., 0]
    uniform = -logs.mean(-1)
    if reduction == "mean of rows":
        per_row = np.maximum(weight.sum(1), 1)
        return tuple(float((x * weight).sum(1).__truediv__(per_row).mean()) for x in (chosen, uniform))
    divisor = {"mean": weight.sum(), "sum": 1.0, "mean of all cells": weight.size}[reduction]
    return tuple(float((x * weight).sum() / max(divisor, 1)) for x in (chosen, uniform))
