"""Faults of initial weights, of the output, and of numbers on their way through the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxstories.faults.fault import Faults, change, minimising, shape
from mlxstories.faults.leaks import ByHand, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.faults.recipe import Recipe
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import Block

FAULTS = Faults("model")


# Initial weights


def initialised(function: Callable[[mx.array], mx.array]) -> Callable[[Recipe], Recipe]:
    """A plant that sets every matrix anew."""

    def edit(model: Transformer, config: ModelConfig) -> None:
        model.update(tree_map(lambda w: function(w) if w.ndim == 2 else w, model.parameters()))

    return rebuilt(edit)


FAULTS.add(
    "embedding-of-unit-variance",
    "bad-initialization",
    "a tied embedding starts at N(0, 1), and so the logits at N(0, dim)",
    rebuilt(lambda model, config: setattr(model.embed, "weight", mx.random.normal(model.embed.weight.shape))),
)
FAULTS.add(
    "weights-of-unit-variance",
    "bad-initialization",
    "every matrix starts at N(0, 1)",
    initialised(lambda weight: mx.random.normal(weight.shape)),
)
FAULTS.add(
    "weights-constant",
    "bad-initialization",
    "every matrix starts at 0.01, so all units stay alike",
    initialised(lambda weight: mx.full(weight.shape, 0.01)),
)


# The output


class Probabilities(Transformer):
    def head(self, features):
        return mx.softmax(super().head(features), axis=-1)


class Squeezed(Transformer):
    """Caps logits softly at 1, which leaves no room for certainty."""

    def head(self, features):
        return mx.tanh(super().head(features))


class Rectified(Transformer):
    """The output layer has an activation, like those before it."""

    def head(self, features):
        return nn.relu(super().head(features))


class StrictMask(ByHand):
    """Excludes the diagonal too, so the first position sees nothing at all."""

    def weights(self, scores, past):
        strictly = mx.tri(scores.shape[-1], k=-1)
        return mx.softmax(mx.where(strictly > 0, scores, -mx.inf), axis=-1)


class RootOfZero(nn.Module):
    """A norm whose square root has no epsilon, on rows that may be zero."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones((dim,))

    def __call__(self, x):
        norm = mx.sqrt(x.square().sum(axis=-1, keepdims=True))
        return self.weight * mx.where(norm > 0, x / mx.maximum(norm, 1e-6), 0) * x.shape[-1] ** 0.5


class HalfPrecision(Transformer):
    """Computes in float16 with scores that are not scaled down."""

    def __init__(self, config):
        super().__init__(config)
        self.set_dtype(mx.float16)

    def head(self, features):
        return super().head(features * 300) * 300


def zero_padding_row(model: Transformer, config: ModelConfig) -> None:
    weight = model.embed.weight
    weight[0] = 0
    model.embed.weight = weight
    model.blocks[0].attention_norm = RootOfZero(config.dim)


FAULTS.add(
    "softmax-in-model",
    "double-softmax",
    "the model returns probabilities and the loss takes their softmax again",
    change(build_model=Probabilities),
)


def softmax_first(model, batch):
    probabilities = mx.softmax(model(batch.inputs), axis=-1)
    nats = nn.losses.cross_entropy(probabilities, batch.targets)
    return (nats * batch.mask).sum() / batch.mask.sum()


FAULTS.add(
    "softmax-in-loss",
    "double-softmax",
    "the loss takes a softmax before the cross-entropy",
    minimising(softmax_first),
)
FAULTS.add("logits-capped", "bounded-logits", "a soft cap of 1 on the logits", change(build_model=Squeezed))
FAULTS.add(
    "logits-rectified", "bounded-logits", "a ReLU behind the output layer", change(build_model=Rectified)
)
FAULTS.add("width-of-2", "cannot-overfit", "the stream is 2 wide", shape(dim=2, heads=1, hidden=8))
FAULTS.add(
    "mask-without-diagonal",
    "not-finite",
    "the first row of the mask is all -inf",
    rebuilt(lambda model, config: each_attention(model, config, StrictMask)),
)
FAULTS.add(
    "root-of-zero",
    "not-finite",
    "the gradient of a square root at zero, in the embedding of the END token",
    rebuilt(zero_padding_row),
)
FAULTS.add(
    "float16-overflow", "not-finite", "unscaled products overflow float16", change(build_model=HalfPrecision)
)


class SpecialsBanned(Transformer):
    """Sets the special tokens to -inf, so that they are never told; the end of a story is one of them."""

    def head(self, features):
        logits = super().head(features)
        return mx.where(mx.arange(logits.shape[-1]) < 3, -mx.inf, logits)


def mean_after_prompt(model, batch):
    nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
    told = batch.mask * (mx.arange(batch.mask.shape[1]) >= 128)
    return ((nats * told).sum(axis=1) / told.sum(axis=1)).mean()


FAULTS.add(
    "empty-rows-averaged",
    "not-finite",
    "a mean of each row after its first 128 tokens, where short rows have none",
    minimising(mean_after_prompt),
)
FAULTS.add(
    "end-token-banned",
    "not-finite",
    "the special tokens' logits are -inf, and the end of a story is among the targets",
    change(build_model=SpecialsBanned),
)


# Gradients through the layers


class SigmoidStack(Transformer):
    """Feed-forward layers with sigmoids and no residual path, eight deep."""

    def __init__(self, config):
        super().__init__(config)
        self.deep = [nn.Linear(config.dim, config.dim) for _ in range(8)]

    def features(self, tokens, cache=None):
        x = super().features(tokens, cache)
        for layer in self.deep:
            x = mx.sigmoid(layer(x))
        return x


class NoResidual(Block):
    """Forgets to add the input."""

    def __call__(self, x, mask, layer, cache):
        return self.feed_forward(self.attention(x, mask, layer, cache))


class Amplified(Block):
    """Each branch is multiplied by 20 and none is normalised."""

    def __call__(self, x, mask, layer, cache):
        x = x + 20 * self.attention(x, mask, layer, cache)
        return x + 20 * nn.relu(self.feed_forward.up(x)) @ self.feed_forward.down.weight.T


def blocks_of(block: type, count: int):
    def plant(recipe: Recipe) -> Recipe:
        def edit(model: Transformer, config: ModelConfig) -> None:
            model.blocks = [block(config) for _ in range(count)]

        return rebuilt(edit)(shape(layers=count)(recipe))

    return plant


FAULTS.add(
    "sigmoid-stack",
    "vanishing-gradient",
    "eight sigmoid layers without a residual path",
    change(build_model=SigmoidStack),
)
FAULTS.add(
    "residual-forgotten",
    "vanishing-gradient",
    "five blocks, unnormalised, forget to add their input",
    blocks_of(NoResidual, 5),
)


@FAULTS.planted("branches-times-20", "exploding-gradient", "branches times 20, no norms, no clipping")
def _(recipe: Recipe) -> Recipe:
    return replace(blocks_of(Amplified, 6)(recipe), phase=replace(recipe.phase, clip_norm=None))
