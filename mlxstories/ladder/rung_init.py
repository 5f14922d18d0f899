"""Rung 2: the untrained model: its shape, first loss, its loss function."""

from __future__ import annotations

import math
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.findings import ERROR, NOTE, WARNING
from mlxstories.ladder.examination import Examination, token_losses
from mlxstories.ladder.objective import Objective, fit, recover

_EXCESS_ERROR, _EXCESS_WARNING = 3.0, 1.0  # nats of the first loss above ln V
_QUICK_TOKENS = 64


def climb(exam: Examination, *, quick: bool = False) -> None:
    """Check the untrained model; ``quick`` looks at short rows and takes only a few forward passes."""
    model = exam.model()
    probe = exam.sample.rows(slice(0, min(8, exam.sample.shape[0])))
    _tables(exam, model, probe)
    if exam.has("token-out-of-range"):
        return
    if quick:
        probe = probe.cut(_QUICK_TOKENS)
    _finite(exam, model, probe)
    if exam.has("not-finite"):
        return
    logits = exam.logits(model, probe.inputs)
    probabilities = _first_loss(exam, logits, probe)
    if not probabilities:
        _objective(exam, model)


@contextmanager
def _watched_tables(found: list):
    """Have every ``nn.Embedding`` check its ids before MLX reads past the table."""
    original = nn.Embedding.__call__

    def checked(table, ids):
        size = table.weight.shape[0]
        if mx.issubdtype(ids.dtype, mx.integer) and ids.size:
            low, high = int(ids.min()), int(ids.max())
            if high >= size or low < -size:
                found.append((high if high >= size else low, size))
                ids = mx.clip(ids, 0, size - 1)
        return original(table, ids)

    nn.Embedding.__call__ = checked
    try:
        yield
    finally:
        nn.Embedding.__call__ = original


def _tables(exam: Examination, model: nn.Module, probe) -> None:
    size, outside = exam.subject.vocab_size, []
    with _watched_tables(outside):
        width = exam.logits(model, probe.inputs[:1]).shape[-1]
        exam.logits(model, np.full((1, probe.shape[1]), exam.subject.vocab_size - 1))
    if width < exam.subject.vocab_size:
        outside.append((exam.subject.vocab_size - 1, width))
    exam.check("embedding tables", not outside, f"logits for {width} ids")
    if outside:
        token, rows = outside[0]
        exam.found(
            "token-out-of-range",
            ERROR,
            f"id {token} is looked up in a table of {rows} rows; MLX reads past its end without a word",
            fix=f"build the model for at least {max(t for t, _ in outside) + 1} ids or positions "
            f"(vocab_size is {size}, rows are {probe.shape[1]} tokens)",
            where="model",
            id=token,
            rows=rows,
        )


def _finite(exam: Examination, model: nn.Module, probe) -> None:
    broken = [
        name
        for name, array in tree_flatten(model.trainable_parameters())
        if mx.issubdtype(array.dtype, mx.floating) and bool(mx.any(mx.isnan(array)))
    ]
    # The shortest rows too: a mean over what they do not have is not a number.
    batch = probe.rows(slice(0, 4))
    wrong = []
    for part in (batch, exam.sample.rows(slice(-4, None))):
        device = part.device()
        logits = exam.logits(model, device.inputs, raw=True)
        losses, _ = token_losses(logits, device.targets)
        impossible = ~mx.isfinite(losses) & (device.mask > 0)  # a target that was given no chance at all
        wrong.append(float(mx.mean(mx.isnan(logits) | (logits == mx.inf) | impossible[..., None])))
    share = max(wrong)
    finite = share == 0 and not broken
    if finite and not _loss_finite(exam, model):
        return
    exam.check("logits finite", finite)
    if not finite:
        exam.found(
            "not-finite",
            ERROR,
            f"the untrained model's logits, or the losses of real targets, are not finite ({share:.1%} of them)"
            + (f"; parameter {broken[0]} is NaN from the start" if broken else ""),
            fix="look for a division by zero, a log of 0, a row whose attention mask is -inf throughout, "
            "or a float16 overflow",
            where=broken[0] if broken else "model",
            share=share,
        )


def _loss_finite(exam: Examination, model: nn.Module) -> bool:
    """Whether the subject's loss is finite on its own batches, the shortest rows among them."""
    shortest = exam.sample.rows(slice(-4, None))
    for batch in (exam.sample.rows(slice(0, 4)), shortest, shortest.rows(slice(-1, None))):
        with exam.calling("loss"):
            value = float(exam.loss(model, batch))
        if not np.isfinite(value):
            real = [int(row.sum()) for row in batch.mask]
            exam.check("loss finite", False, f"{value} on rows of {min(real)} to {max(real)} real tokens")
            exam.found(
                "not-finite",
                ERROR,
                f"the loss is {value} on rows of {min(real)} to {max(real)} real tokens, although the logits are "
                "finite",
                fix="divide by a count that cannot be 0, and take no log of 0",
                where="loss",
                real_tokens=real,
            )
            return False
    return True


def _first_loss(exam: Examination, logits: mx.array, probe) -> bool:
    """Compare the first loss with ln V; returns whether the model hands out probabilities."""
    device = probe.device()
    values = np.array(logits)
    real = probe.mask > 0
    sums = values.sum(-1)
    if (values >= 0).all() and np.abs(sums - 1).max() < 1e-2:
        exam.check("model returns logits", False, "rows sum to 1")
        exam.found(
            "double-softmax",
            ERROR,
            "the model returns probabilities (every row is positive and sums to 1) where the loss expects logits: "
            f"the loss can never fall below {_floor_of_double(values.shape[-1]):.2f} nats",
            fix="return the output of the last linear layer; the cross-entropy applies the softmax",
            where="model",
            lowest_reachable=_floor_of_double(values.shape[-1]),
        )
        return True
    exam.check("model returns logits", True)
    losses, _ = token_losses(logits, device.targets)
    loss, expected = float(np.array(losses)[real].mean()), math.log(values.shape[-1])
    # A tied model loves its own input at first, which training unlearns at once: leave that logit out.
    own = np.array(logits)
    np.put_along_axis(own, np.maximum(probe.inputs, 0)[..., None], own.min(-1, keepdims=True), -1)
    others, _ = token_losses(mx.array(own), device.targets)
    apart = real & (probe.targets != probe.inputs)
    excess = float(np.array(others)[apart].mean()) - expected if apart.any() else loss - expected
    excess = min(excess, loss - expected)
    spread = float(values.std())
    bad = excess > _EXCESS_ERROR
    exam.facts |= {"first_loss": loss, "expected_loss": expected, "logit_spread": spread}
    exam.check("first loss near ln V", not bad, f"{loss:.2f}, ln V = {expected:.2f}")
    if excess > _EXCESS_WARNING:
        exam.found(
            "bad-initialization",
            ERROR if bad else WARNING,
            f"the untrained model's loss is {loss:.2f} nats where guessing costs ln {values.shape[-1]} = "
            f"{expected:.2f}: its logits spread by {spread:.1f} instead of about 1 or less",
            fix="initialise weights with a standard deviation near 0.02 or 1/sqrt(fan in), "
            f"so {max(2.0, spread):.0f} times smaller in the output layer",
            where="model",
            first_loss=loss,
            ln_vocabulary=expected,
            logit_spread=spread,
        )


def _floor_of_double(size: int) -> float:
    return math.log(math.e + size - 1) - 1


# --- the loss function ---------------------------------------------------------------------------


def _objective(exam: Examination, model: nn.Module) -> None:
    if exam.subject.loss is None:
        exam.check("loss is the masked cross-entropy", True, "the default")
        return
    masked = exam.sample.masked
    found = _by_stub(exam, masked) or _by_model(exam, masked)
    exam.facts["objective"] = found
    if found is None:
        exam.check("loss is the masked cross-entropy", None, "its formula was not recognised")
        return
    judge_objective(exam, found, "loss", pads=any((b.mask == 0).any() for b in exam.train.batches))


def judge_objective(exam: Examination, found: Objective, where: str, *, pads: bool) -> None:
    """Turn a recovered formula into checks and findings."""
    before = len(exam.findings)
    size = exam.subject.vocab_size
    if found.sign < 0:
        exam.found(
            "loss-sign",
            ERROR,
            f"the {where} is minus the cross-entropy: minimising it makes the right tokens ever less likely",
            fix="return the mean of -log p, without the extra minus",
            where=where,
            factor=-1,
        )
    if found.softmaxes == 2:
        lowest = _floor_of_double(size)
        exam.found(
            "double-softmax",
            ERROR,
            f"the {where} applies softmax to the logits before a cross-entropy that applies it again: "
            f"it can never fall below {lowest:.2f} nats (ln V = {math.log(size):.2f}) and its gradients are tiny",
            fix="hand the raw logits to the cross-entropy",
            where=where,
            lowest_reachable=lowest,
        )
    if found.shift:
        exam.found(
            "targets-mismatched",
            ERROR,
            f"the {where} shifts the targets by {found.shift:+d} against the logits although the batches already "
            f"are shifted: the model learns the token {found.shift + 1} places on",
            fix="compare logits[:, t] with targets[:, t]",
            where=where,
            shift=found.shift,
        )
    if not found.masked:
        exam.found(
            "padding-in-loss",
            ERROR if pads else WARNING,
            f"the {where} counts masked cells as real tokens"
            + ("" if pads else ", which these batches, having no padding, do not show yet"),
            fix="multiply the losses by batch.mask and divide by its sum",
            where=where,
            reduction=found.reduction,
        )
    if found.smoothing > 0.005:
        exam.facts["smoothing"] = found.smoothing
        exam.found(
            "smoothed-validation-loss",
            NOTE,
            f"the training {where} smooths labels by {found.smoothing:.2g}: it is not comparable with a validation "
            "loss, which must not",
            fix="report the unsmoothed loss",
            where=where,
            label_smoothing=found.smoothing,
        )
    bad = any(f.severity == ERROR for f in exam.findings[before:])
    exam.check(
        "loss is the masked cross-entropy", not bad, f"{found.reduction}, smoothing {found.smoothing:.2g}"
    )


def _by_stub(exam: Examination, masked: bool) -> Objective | None:
    def value(stub, batch) -> float:
        return float(exam.subject.loss(stub, batch.user()))

    try:
        return recover(exam, value, with_mask=masked)
    except Exception:  # the loss needs more of the model than calling it
        return None


def _by_model(exam: Examination, masked: bool) -> Objective | None:
    model = exam.noisy(3)
    model.eval()
    rng = np.random.default_rng((exam.seed, 29))
    sample = exam.sample
    cases, values = [], []
    for _ in range(10):
        picked = sample.rows(rng.integers(0, sample.shape[0], min(2, sample.shape[0])))
        targets = rng.integers(0, exam.subject.vocab_size, picked.shape)
        mask = np.ones(picked.shape, np.float32)
        if masked:
            length = picked.shape[1]
            mask = (np.arange(length) < rng.integers(1, length + 1, picked.shape[0])[:, None]).astype(
                np.float32
            )
        batch = picked.with_(targets=targets, mask=mask)
        with exam.calling("loss"):
            values.append(float(exam.loss(model, batch)))
        logits = np.array(exam.logits(model, np.maximum(batch.inputs, 0)))
        cases.append((logits, batch.inputs, targets, mask))
    return fit(cases, np.array(values, dtype=np.float64))
