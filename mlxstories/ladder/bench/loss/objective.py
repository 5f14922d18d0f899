"""Recover what a loss function computes by feeding it known logits and fitting its value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.patches import tokens_of

_CASES = 10
_FIT = 2e-3  # relative residual of a recovered formula
_UNTOLD = 0.1  # of the values' range: what a formula leaves of it at most, or it only tells their mean
_SMOOTHED = 5e-3  # share of the smoothing term below which there is none
_MUCH = 0.3  # smoothing, above which it may be something else
_EXACT = 1e-4  # relative residual with a constant, which explains much else roughly
_HIDDEN = 200.0  # times the residual: what a loss in 16 bits is rounded by looks like a smaller share
_ROUNDED = 1.05  # times the model's logits: what a loss in 16 bits may seem to be
_SHIFTS = (0, 1, -1, 2)
_REDUCTIONS = ("mean", "sum", "mean of all cells", "mean of rows")

Case = tuple[np.ndarray, ...]
"""Logits, inputs, targets and mask of one batch."""


class Stub(nn.Module):
    """A model whose logits are given."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size
        self._frozen_logits = None

    def show(self, logits: np.ndarray) -> None:
        self._frozen_logits = mx.array(logits)

    def __call__(self, *args, **kwargs):
        return self._frozen_logits[:, : tokens_of(args, kwargs).shape[1]]


@dataclass(frozen=True)
class Objective:
    """The formula that explains a loss function's values.

    Attributes:
        sign: +1, or -1 for a loss turned upside down.
        softmaxes: 1, or 2 where the logits went through a softmax before the loss.
        smoothing: of the labels.
        masked: whether masked cells are left out.
        shift: 0, or by how many places targets are shifted against logits inside the loss.
        reduction: ``mean``, ``sum``, ``mean of all cells`` or ``mean of rows``.
        residual: relative misfit.
        factor: of the cross-entropy, without the sign.
        added: what is added to it, whatever the logits are.
        times: by what a loss that makes the logits itself multiplies those of the model.
    """

    sign: int
    softmaxes: int
    smoothing: float
    masked: bool
    shift: int
    reduction: str
    residual: float
    factor: float = 1.0
    added: float = 0.0
    times: float = 1.0

    def __str__(self) -> str:
        told = {
            self.reduction: True,
            f"smoothing {self.smoothing:.2g}": True,
            "negative": self.sign < 0,
            f"{self.softmaxes} softmaxes": self.softmaxes > 1,
            f"targets shifted by {self.shift:+d}": self.shift != 0,
            "masked cells count": not self.masked,
            f"{self.added:+.3g} added": self.added != 0,
            f"logits times {self.times:.3g}": self.times != 1,
        }
        return ", ".join(words for words, so in told.items() if so)


@measurement
def loss_formula(bench: Bench) -> Objective | None:
    """The formula of the subject's own loss; None where it is no masked cross-entropy, or the default one."""
    if bench.subject.loss is None:
        return None
    return _by_stub(bench) or _by_model(bench)


def floor_of_double(size: int) -> float:
    """The lowest cross-entropy in nats that logits between 0 and 1 can reach over ``size`` ids."""
    return float(np.log(np.e + size - 1) - 1)


def _by_stub(bench: Bench) -> Objective | None:
    def value(stub: nn.Module, batch: HostBatch) -> float:
        return float(bench.loss(stub, batch))

    try:
        return recover(bench, value, with_mask=sample(bench).masked)
    except Exception:  # the loss needs more of the model than calling it
        return None


def _by_model(bench: Bench) -> Objective | None:
    """Fit with the logits of the subject's own model, for losses that need more of a model than calling it: on random
    targets, and on random rows of tokens for those that cut inputs and targets from one row."""
    return _of_model(bench, _redrawn) or _of_model(bench, _redrawn_rows)


def _of_model(bench: Bench, redrawn: Callable[[Bench, np.random.Generator], HostBatch]) -> Objective | None:
    model = bench.noisy(3)
    model.eval()
    rng = np.random.default_rng((bench.seed, 29))
    cases, values = [], []
    for _ in range(_CASES):
        batch = redrawn(bench, rng)
        with bench.calling("loss"):
            values.append(float(bench.loss(model, batch)))
        logits = np.array(bench.logits(model, np.maximum(batch.inputs, 0)))
        cases.append((logits, batch.inputs, batch.targets, batch.mask))
    values = np.array(values, dtype=np.float64)
    return fit(cases, values) or _of_other_logits(cases, values)


def _of_other_logits(cases: list[Case], values: np.ndarray) -> Objective | None:
    """The cross-entropy of the model's logits times a number, where that explains the values."""

    def nats(case: Case, times: float) -> float:
        return _terms(log_softmax(times * case[0], 1), *case[1:], 0, masked, "mean")[0]

    for masked in (True, False):
        for times in factors_of_logits(lambda times: nats(cases[0], times), values[0]):
            told = np.array([nats(case, times) for case in cases])
            left = float(np.abs(told - values).max())
            residual = left / float(np.abs(values).max())
            other = max(times, 1 / times) > _ROUNDED
            if other and residual < _FIT and left < _UNTOLD * np.ptp(values):
                return Objective(1, 1, 0.0, masked, 0, "mean", residual, times=times)
    return None


def factors_of_logits(nats: Callable[[float], float], loss: float) -> Iterator[float]:
    """The factors of logits, from 1/64 to 64, by which their cross-entropy is this loss.

    Args:
        nats: the cross-entropy of the logits times a factor. It is convex: two factors at most are found.
        loss: in nats.
    """
    ends = [2.0**power for power in range(-6, 7)]
    below = [nats(end) < loss for end in ends]
    for k, (low, high) in enumerate(pairwise(ends)):
        if below[k] != below[k + 1]:
            for _ in range(24):
                middle = (low + high) / 2
                low, high = (middle, high) if (nats(middle) < loss) == below[k] else (low, middle)
            yield low


def _redrawn(bench: Bench, rng: np.random.Generator) -> HostBatch:
    """Two of the subject's rows with random targets and, where it has one, a random mask."""
    rows = sample(bench)
    picked = rows.rows(rng.integers(0, rows.shape[0], min(2, rows.shape[0])))
    targets = rng.integers(0, bench.subject.vocab_size, picked.shape)
    mask = np.ones(picked.shape, np.float32)
    if rows.masked:
        count, length = picked.shape
        mask = _masks(length, rng.integers(1, length + 1, count))
    return picked.with_(targets=targets, mask=mask)


def _redrawn_rows(bench: Bench, rng: np.random.Generator) -> HostBatch:
    """The same with random tokens, each the target of the one before."""
    batch = _redrawn(bench, rng)
    count, length = batch.shape
    tokens = rng.integers(0, bench.subject.vocab_size, (count, length + 1))
    return batch.with_(inputs=tokens[:, :-1], targets=tokens[:, 1:])


def _masks(length: int, kept: np.ndarray) -> np.ndarray:
    return (np.arange(length) < kept[:, None]).astype(np.float32)


def recover(
    bench: Bench,
    loss: Callable[[nn.Module, HostBatch], float],
    *,
    with_mask: bool,
) -> Objective | None:
    """Fit ``loss`` to masked cross-entropies of known logits; None where it is something else."""
    rng = np.random.default_rng((bench.seed, 23))
    form = sample(bench)
    stub = Stub(bench.subject.vocab_size)
    cases, values = [], []
    for case in range(_CASES):
        logits, inputs, targets, mask = _known(bench, rng, case, with_mask)
        stub.show(logits)
        values.append(loss(stub, form.with_(inputs=inputs, targets=targets, mask=mask)))
        cases.append((logits, inputs, targets, mask))
    values = np.array(values, dtype=np.float64)
    plain = fit(cases, values)
    if plain is not None and not plain.smoothing:
        return plain
    moved = _with_constant(cases, values)
    return moved if moved and (plain is None or moved.residual < 0.1 * plain.residual) else plain


def _with_constant(cases: list[Case], values: np.ndarray) -> Objective | None:
    """A share of the cross-entropy and a constant, which together explain the values, if so."""
    if not np.isfinite(values).all():
        return None
    logs = [log_softmax(case[0], 1) for case in cases]
    for masked, reduction in product((True, False), _REDUCTIONS):
        nats = [
            _terms(log, *case[1:], 0, masked, reduction)[0] for log, case in zip(logs, cases, strict=True)
        ]
        columns = np.column_stack([nats, np.ones(len(values))])
        solution, *_ = np.linalg.lstsq(columns, values, rcond=None)
        residual = float(np.abs(columns @ solution - values).max() / max(np.abs(values).max(), 1e-30))
        factor, added = map(float, solution)
        if residual < _EXACT and abs(factor) > 1e-6:
            return Objective(int(np.sign(factor)), 1, 0.0, masked, 0, reduction, residual, abs(factor), added)
    return None


def _known(bench: Bench, rng: np.random.Generator, case: int, with_mask: bool) -> Case:
    """A small case of random tokens and logits; in some cases the logits favour the targets."""
    form = sample(bench)
    rows, length = min(form.shape[0], 4), min(form.shape[1], 24)
    size = bench.subject.vocab_size
    inputs = rng.integers(0, size, (rows, length))
    targets = rng.integers(0, size, (rows, length))
    mask = np.ones((rows, length), np.float32)
    if with_mask:
        mask = _masks(length, rng.integers(length // 3, length, rows))
    scale = 0.5 + 3.0 * rng.random()
    logits = (scale * rng.standard_normal((rows, length, size))).astype(np.float32)
    favoured = np.take_along_axis(logits, targets[..., None], -1) + np.float32(case % 4)
    np.put_along_axis(logits, targets[..., None], favoured, -1)
    return logits, inputs, targets, mask


def fit(cases: list[Case], values: np.ndarray) -> Objective | None:
    """The simplest formula that reproduces ``values`` from (logits, inputs, targets, mask)."""
    if not np.isfinite(values).all() or np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    for softmaxes in (1, 2):
        logs = [log_softmax(case[0], softmaxes) for case in cases]
        for shift, masked, reduction in product(_SHIFTS, (True, False), _REDUCTIONS):
            terms = [
                _terms(log, *case[1:], shift, masked, reduction)
                for log, case in zip(logs, cases, strict=True)
            ]
            if solved := _solve(np.array(terms), values):
                total, smoothing, residual = solved
                sign, factor = int(np.sign(total)), abs(total)
                return Objective(sign, softmaxes, smoothing, masked, shift, reduction, residual, factor)
    return None


def _solve(terms: np.ndarray, values: np.ndarray) -> tuple[float, float, float] | None:
    """Factor, smoothing and residual with which a cross-entropy and its smoothing term explain the values, if so."""
    solution, *_ = np.linalg.lstsq(terms, values, rcond=None)
    left = float(np.abs(terms @ solution - values).max())
    residual = left / float(np.abs(values).max())
    if residual >= _FIT or left >= _UNTOLD * np.ptp(values) or abs(solution[0]) <= 1e-6:
        return None
    total = float(solution.sum())
    smoothing = float(solution[1]) / total
    if not -_SMOOTHED <= smoothing <= 1 + _SMOOTHED:
        return None  # nobody smooths by less than nothing, or by more than all
    if smoothing > _MUCH and _added(terms, values) <= left:
        return None
    told = smoothing > max(_SMOOTHED, _HIDDEN * residual)
    return total, smoothing if told else 0.0, residual


def _added(terms: np.ndarray, values: np.ndarray) -> float:
    """What a cross-entropy and a constant leave unexplained, in place of smoothing: a penalty on the weights adds the
    same to every loss, which looks like much smoothing where logits lie close together."""
    columns = np.column_stack([terms[:, 0], np.ones(len(values))])
    solution, *_ = np.linalg.lstsq(columns, values, rcond=None)
    return float(np.abs(columns @ solution - values).max())


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
        return tuple(float(((x * weight).sum(1) / per_row).mean()) for x in (chosen, uniform))
    divisor = {"mean": weight.sum(), "sum": 1.0, "mean of all cells": weight.size}[reduction]
    return tuple(float((x * weight).sum() / max(divisor, 1)) for x in (chosen, uniform))
