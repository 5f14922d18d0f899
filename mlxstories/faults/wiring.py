"""Faults of how a model and its loss are put together."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn

from mlxstories.batch import Batch
from mlxstories.faults.fault import Faults, minimising, shape
from mlxstories.faults.leaks import ByHand, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import mean_nats
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import Block

FAULTS = Faults("wiring")


def masked_softmax(scores, past):
    return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class ScaleInverted(ByHand):
    """Multiplies scores by the root of the head's width, where they should be divided by it."""

    def mix(self, queries, keys, values):
        scores = queries @ keys.swapaxes(-1, -2) * math.sqrt(queries.shape[-1])
        return masked_softmax(8 * scores, mx.tri(scores.shape[-1])) @ values


class MaskOfFloat32(ByHand):
    """Adds a mask of float32 to scores of bfloat16."""

    def weights(self, scores, past):
        return mx.softmax(scores + mx.where(past > 0, 0.0, -1e9), axis=-1)


class SquaringNorm(nn.Module):
    """Divides by the reciprocal root of the mean square."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones((dim,))

    def __call__(self, x):
        return self.weight * x / mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-5)


class DifferentiatedByHand(nn.Module):
    """An RMS norm with its own backward pass, which is ``whole`` or takes the mean square for a constant."""

    whole = False

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones((dim,))

    def __call__(self, x):
        @mx.custom_function
        def normalised(x):
            return x * mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-5)

        @normalised.vjp
        def slope(x, cotangent, y):
            inverse = mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-5)
            through_mean = y * (cotangent * y).mean(-1, keepdims=True) if self.whole else 0
            return inverse * (cotangent - through_mean)

        return self.weight * normalised(x)


class DifferentiatedWhole(DifferentiatedByHand):
    whole = True


class AttentionTakesOver(Block):
    """What attention returns takes the place of the stream."""

    def __call__(self, x, mask, layer, cache):
        x = self.attention(self.attention_norm(x), mask, layer, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class StreamDropped(Block):
    """Dropout comes after the addition."""

    def __call__(self, x, mask, layer, cache):
        x = self.dropout(x + self.attention(self.attention_norm(x), mask, layer, cache))
        return self.dropout(x + self.feed_forward(self.feed_forward_norm(x)))


def each_block(model: Transformer, block: type[nn.Module], config: ModelConfig) -> None:
    model.blocks = [block(config) for _ in model.blocks]


def each_norm(model: Transformer, norm: type[nn.Module], dim: int) -> None:
    for block in model.blocks:
        block.attention_norm, block.feed_forward_norm = norm(dim), norm(dim)


class Linear(nn.Module):
    """A feed-forward layer that forgets its activation."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def __call__(self, x):
        return self.down(self.up(x))


class BentLast(Linear):
    """A feed-forward layer whose activation stands behind both of its matrices."""

    def __call__(self, x):
        return nn.gelu_approx(super().__call__(x))


class Adapted(nn.Module):
    """A linear layer with a low-rank pair beside it."""

    def __init__(self, base: nn.Linear, rank: int = 4):
        super().__init__()
        self.base = base
        out, into = base.weight.shape
        self.lora_a = mx.random.normal((into, rank)) / into**0.5
        self.lora_b = mx.zeros((rank, out))

    def __call__(self, x):
        return self.base(x) + (x @ self.lora_a) @ self.lora_b


def adapted(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward.down = Adapted(block.feed_forward.down)


def head_of_the_embedding(model: Transformer, config: ModelConfig) -> None:
    model.head_projection.weight = model.embed.weight


def in_bfloat16(model: Transformer, config: ModelConfig) -> None:
    model.set_dtype(mx.bfloat16)


def decode_anew(model, prompt, n):
    """Greedy, the whole text again for each token."""
    model.eval()
    ids = list(prompt)
    for _ in range(min(n, model.config.context - len(ids))):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1]).item()))
    return ids[len(prompt) :]


def loud_places(model: nn.Module, config: ModelConfig) -> None:
    model.position.weight = 30 * model.position.weight


def one_id_lower(model: nn.Module, batch: Batch) -> mx.array:
    return mean_nats(model, batch._replace(targets=mx.maximum(batch.targets - 1, 0)))


def squared_errors(model: nn.Module, batch: Batch) -> mx.array:
    shares = mx.softmax(model(batch.inputs), axis=-1)
    wanted = mx.arange(shares.shape[-1]) == batch.targets[..., None]
    return ((shares - wanted).square().sum(-1) * batch.mask).sum() / batch.mask.sum()


def over_all_cells(model: nn.Module, batch: Batch) -> mx.array:
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, weights=batch.mask, reduction="mean")


FAULTS.add(
    "scores-multiplied",
    "extreme-scale",
    "attention scores are multiplied where they should be divided, and far too wide",
    rebuilt(lambda model, config: each_attention(model, config, ScaleInverted)),
)
FAULTS.add(
    "norms-squaring",
    "extreme-scale",
    "norms divide by a reciprocal",
    rebuilt(lambda model, config: each_norm(model, SquaringNorm, config.dim)),
)
FAULTS.add(
    "places-loud",
    "extreme-scale",
    "the table of positions starts thirty times as large as that of tokens",
    lambda recipe: rebuilt(loud_places)(shape(positions="learned")(recipe)),
    severity="warning",
)
FAULTS.add(
    "norms-mean-constant",
    "backward-mismatch",
    "norms with a backward pass of their own that takes the mean square for a constant",
    rebuilt(lambda model, config: each_norm(model, DifferentiatedByHand, config.dim)),
)
FAULTS.add(
    "head-of-the-embedding",
    "tie-broken",
    "the output matrix is set to the embedding's, as PyTorch shares them",
    lambda recipe: rebuilt(head_of_the_embedding)(shape(tied=False)(recipe)),
    severity="warning",
)
FAULTS.add("dropout-of-0.9", "dropout-too-high", "dropout of 0.9, which was to be kept", shape(dropout=0.9))
FAULTS.add(
    "stream-dropped",
    "dropout-too-high",
    "dropout of 0.1 reads what the stream is after each addition, not what is added",
    lambda recipe: rebuilt(lambda model, config: each_block(model, StreamDropped, config))(
        shape(dropout=0.1)(recipe)
    ),
    severity="warning",
)
FAULTS.add(
    "adapters-on-a-trained-base",
    "base-not-frozen",
    "low-rank pairs are attached, and the base is trained beside them",
    rebuilt(adapted),
    severity="warning",
)
FAULTS.add(
    "activation-forgotten",
    "missing-nonlinearity",
    "feed-forward layers without their activation",
    rebuilt(lambda model, config: [setattr(block, "feed_forward", Linear(config)) for block in model.blocks]),
    severity="warning",
)
FAULTS.add(
    "activation-last",
    "missing-nonlinearity",
    "feed-forward layers whose activation stands behind the second matrix",
    rebuilt(
        lambda model, config: [setattr(block, "feed_forward", BentLast(config)) for block in model.blocks]
    ),
    severity="warning",
)
FAULTS.add(
    "mask-of-float32",
    "precision-promoted",
    "a model of bfloat16 whose mask is float32",
    lambda recipe: replace(
        rebuilt(in_bfloat16)(
            rebuilt(lambda model, config: each_attention(model, config, MaskOfFloat32))(recipe)
        ),
        generate=decode_anew,
    ),
    severity="warning",
)
FAULTS.add(
    "targets-one-id-lower", "wrong-loss", "the loss takes 1 off every target", minimising(one_id_lower)
)
FAULTS.add(
    "targets-clipped-in-loss",
    "wrong-loss",
    "the loss takes every target above 40 for 40",
    minimising(lambda model, batch: mean_nats(model, batch._replace(targets=mx.minimum(batch.targets, 40)))),
)
FAULTS.add(
    "first-places-only",
    "wrong-loss",
    "the loss counts the first eight places of each row",
    minimising(
        lambda model, batch: mean_nats(lambda tokens: model(tokens)[:, :8], Batch(*(a[:, :8] for a in batch)))
    ),
)
FAULTS.add(
    "logits-without-gradient",
    "wrong-loss",
    "the loss stops the gradient of the logits",
    minimising(lambda model, batch: mean_nats(lambda tokens: mx.stop_gradient(model(tokens)), batch)),
)
FAULTS.add("squared-errors", "wrong-loss", "squared errors of probabilities", minimising(squared_errors))
FAULTS.add(
    "attention-not-added",
    "residual-left-out",
    "the stream is what attention returns, and not added to it",
    rebuilt(lambda model, config: each_block(model, AttentionTakesOver, config)),
    severity="warning",
)
FAULTS.add(
    "divided-by-all-cells",
    "wrong-normalisation",
    "the loss is divided by all cells, padding too, as MLX's cross_entropy with weights does",
    minimising(over_all_cells),
)
