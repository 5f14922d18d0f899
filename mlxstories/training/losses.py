"""What training minimises: next-token and masked-token cross-entropy, in nats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import kernels
from mlxstories.batch import Batch
from mlxstories.data.tokenizer import MASK, SPECIALS
from mlxstories.model import MlxLmConfig, ModelConfig, Transformer

FIRST_WORD = len(SPECIALS)  # ids below it are special
MASKED_SHARE = 0.15


def cross_entropy(
    logits: mx.array, targets: mx.array, mask: mx.array, label_smoothing: float = 0.0
) -> tuple[mx.array, mx.array]:
    """Sum of the cross-entropy over real tokens, and their count.

    With smoothing e the target distribution is ``(1 - e) onehot + e / V`` (Szegedy et al. 2016, section 7).

    Args:
        logits: [B, T, V]; the sums are in float32.
        targets: int [B, T].
        mask: float32 [B, T], 1.0 on real tokens.
        label_smoothing: e, in [0, 1).

    Returns:
        nats (scalar, sum) and tokens (scalar).
    """
    nats, tokens, _, _ = next_token_metrics(logits, targets, mask, label_smoothing)
    return nats, tokens


def next_token_metrics(
    logits: mx.array, targets: mx.array, mask: mx.array, label_smoothing: float = 0.0
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """As `cross_entropy`, with what is reported beside it.

    Returns:
        objective (scalar, sum in nats; the only one with a gradient), tokens, hits (real tokens whose target has
        the largest logit) and the sum in nats without smoothing; all scalars.
    """
    logits = logits.astype(mx.float32)
    mask = mask.astype(mx.float32)
    objective, nats, _ = _token_nats(label_smoothing)(logits, targets)
    hits = (mx.argmax(mx.stop_gradient(logits), axis=-1) == targets) * mask
    # where, not times: a masked cell whose loss is not finite must not reach the sum
    objective, nats = (mx.where(mask > 0, values * mask, 0).sum() for values in (objective, nats))
    return objective, mask.sum(), hits.sum(), nats


def target_nats(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Each target's negative log-probability in nats, and whether it has the largest logit; without a gradient.

    Args:
        logits: [..., V].
        targets: int [...].
    """
    targets = targets[..., None]
    best, shifted, _, total = _softmax_parts(logits)
    nats = mx.log(total) - mx.take_along_axis(shifted, targets, axis=-1)
    return nats.squeeze(-1), (best == targets).squeeze(-1)


def _softmax_parts(logits: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """Of logits [..., V]: where the largest is [..., 1], how far each lies below it, the exponentials of that [..., V],
    and their sum [..., 1]; float32."""
    logits = logits.astype(mx.float32)
    best = mx.argmax(logits, axis=-1, keepdims=True)
    shifted = logits - mx.take_along_axis(logits, best, axis=-1)
    powers = kernels.exp_nonpositive(shifted)
    return best, shifted, powers, powers.sum(axis=-1, keepdims=True)


def _token_nats(smoothing: float) -> Callable:
    """Smoothed and plain cross-entropy of each token [B, T], and its softmax [B, T, V] for the gradient."""

    @mx.custom_function
    def nats(logits, targets):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        powers = kernels.exp_nonpositive(shifted)
        total = powers.sum(axis=-1, keepdims=True)
        chosen = mx.take_along_axis(shifted, targets[..., None], axis=-1)
        plain = mx.log(total) - chosen
        smoothed = plain + smoothing * (chosen - shifted.mean(axis=-1, keepdims=True)) if smoothing else plain
        return smoothed.squeeze(-1), plain.squeeze(-1), powers / total

    @nats.vjp
    def gradient(primals, cotangents, outputs):
        logits, targets = primals
        weight = cotangents[0][..., None]
        hit = mx.arange(logits.shape[-1], dtype=targets.dtype) == targets[..., None]
        wanted = mx.where(hit, 1 - smoothing + smoothing / logits.shape[-1], smoothing / logits.shape[-1])
        return (outputs[2] - wanted) * weight, mx.zeros_like(targets)

    return nats


def fused_next_token_metrics(
    features: mx.array, weight: mx.array, targets: mx.array, mask: mx.array, label_smoothing: float = 0.0
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """`next_token_metrics` of the logits ``features @ weight.T``, which never exist as a whole.

    For training: the gradient is made beside the loss, a chunk of rows at a time, so that the largest part of a
    small model's step needs neither the logits' memory nor a second pass over them. Without a gradient the
    plain function does less.

    Args:
        features: [B, T, D].
        weight: [V, D], the output matrix.
        targets, mask, label_smoothing: as in `next_token_metrics`.
    """
    flat = features.reshape(-1, features.shape[-1])
    mask = mask.astype(mx.float32).reshape(-1)
    objective, nats, hits, *_ = _chunked_nats(label_smoothing)(flat, weight, targets.reshape(-1), mask)
    return objective, mask.sum(), hits, nats


def _chunked_nats(smoothing: float) -> Callable:
    """Sums of smoothed nats, nats and hits over all rows, and the first one's gradients by features and weight."""

    @mx.custom_function
    def nats(features, weight, targets, mask):
        vocab = weight.shape[0]
        rows = max(1, kernels.chunk_elements() // vocab)
        sums = by_weight = None
        by_features = []
        for start in range(0, len(features), rows):
            part = slice(start, start + rows)
            x = features[part]
            if by_weight is not None:
                # One chunk after the other, or all their logits would be in memory at once.
                x = mx.depends([x], [by_weight])[0]
            chosen, real = targets[part, None], mask[part, None]
            best, shifted, powers, total = _softmax_parts(x @ weight.T)
            right = mx.take_along_axis(shifted, chosen, axis=-1)
            plain = mx.log(total) - right
            smoothed = plain
            if smoothing:
                smoothed = plain + smoothing * (right - shifted.mean(axis=-1, keepdims=True))
            measured = mx.concatenate([smoothed, plain, (best == chosen).astype(mx.float32)], axis=-1)
            # where, not times: a masked cell whose loss is not finite must not reach the sum
            measured = mx.where(real > 0, measured * real, 0).sum(axis=0)
            sums = measured if sums is None else sums + measured
            hit = mx.arange(vocab, dtype=chosen.dtype) == chosen
            gradient = powers * (real / total) - mx.where(hit, real * (1 - smoothing), 0)
            if smoothing:
                gradient = gradient - real * (smoothing / vocab)
            gradient = gradient.astype(x.dtype)
            by_features.append(gradient @ weight)
            if by_weight is None:
                by_weight = (gradient.T @ x).astype(mx.float32)
            elif x.dtype == mx.float32:
                by_weight = mx.addmm(by_weight, gradient.T, x)
            else:  # the sum over chunks stays float32
                by_weight = by_weight + (gradient.T @ x).astype(mx.float32)
        return *sums, mx.concatenate(by_features), by_weight

    @nats.vjp
    def gradient(primals, cotangents, outputs):
        features, weight, targets, mask = primals
        by_features, by_weight = (cotangents[0] * gradient for gradient in outputs[3:])
        return (
            by_features.astype(features.dtype),
            by_weight.astype(weight.dtype),
            mx.zeros_like(targets),
            mx.zeros_like(mask),
        )

    return nats


def objective(config: ModelConfig | MlxLmConfig) -> Callable:
    """What a model of this configuration is trained on.

    Returns:
        ``(model, batch, key, label_smoothing=0.0)`` to the sums of `next_token_metrics`: over the next tokens
        for a decoder (no key needed), over masked tokens for an encoder.
    """
    if isinstance(config, MlxLmConfig):
        return next_token_by_logits
    return next_token if config.arch == "decoder" else partial(masked_tokens, vocab_size=config.vocab_size)


def next_token(model: nn.Module, batch: Batch, key: mx.array | None = None, label_smoothing: float = 0.0):
    """Predict ``batch.targets`` from ``batch.inputs``."""
    return _metrics(model, batch.inputs, batch.targets, batch.mask, label_smoothing)


def next_token_by_logits(
    model: nn.Module, batch: Batch, key: mx.array | None = None, label_smoothing: float = 0.0
):
    """`next_token` of a model whose output matrix is its own affair."""
    return next_token_metrics(model(batch.inputs), batch.targets, batch.mask, label_smoothing)


def masked_tokens(
    model: nn.Module, batch: Batch, key: mx.array, label_smoothing: float = 0.0, *, vocab_size: int
):
    """Predict 15 % of ``batch.inputs`` from the others (Devlin et al. 2019, section 3.1).

    The same key corrupts the same tokens in the same way, so evaluation repeats.
    """
    corrupted, chosen = corrupt(batch.inputs, batch.mask, key, vocab_size)
    return _metrics(model, corrupted, batch.inputs, chosen, label_smoothing)


def _metrics(model: nn.Module, tokens: mx.array, targets: mx.array, mask: mx.array, label_smoothing: float):
    if isinstance(model, Transformer):
        return fused_next_token_metrics(
            model.features(tokens), model.output_weight, targets, mask, label_smoothing
        )
    return next_token_metrics(model(tokens), targets, mask, label_smoothing)


def corrupt(tokens: mx.array, mask: mx.array, key: mx.array, vocab_size: int) -> tuple[mx.array, mx.array]:
    """Choose 15 % of the ordinary tokens; 80 % of these become MASK, 10 % a random word, 10 % stay.

    Specials are never chosen and never drawn, so the story boundaries stay as they are.

    Returns:
        corrupted tokens int [B, T] and the choice, float32 [B, T].
    """
    choose, how, word = mx.random.split(key, 3)
    ordinary = (tokens >= FIRST_WORD) & (mask > 0)
    chosen = ordinary & (mx.random.uniform(shape=tokens.shape, key=choose) < MASKED_SHARE)
    fate = mx.random.uniform(shape=tokens.shape, key=how)
    words = mx.random.randint(FIRST_WORD, vocab_size, tokens.shape, key=word)
    changed = mx.where(fate < 0.8, MASK, mx.where(fate < 0.9, words, tokens))
    return mx.where(chosen, changed, tokens), chosen.astype(mx.float32)
