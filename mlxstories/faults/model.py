"""Faults of the model: what it cannot see, cannot learn, or starts from."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlxstories.faults.fault import Faults, change, shape
from mlxstories.faults.recipe import Recipe
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import Block, FeedForward

FAULTS = Faults("model")


def rebuilt(edit: Callable[[Transformer, ModelConfig], None]) -> Callable[[Recipe], Recipe]:
    """A plant that edits every model right after it is built."""

    def plant(recipe: Recipe) -> Recipe:
        def build(config: ModelConfig) -> nn.Module:
            model = recipe.build_model(config)
            edit(model, config)
            return model

        return change(build_model=build)(recipe)

    return plant


# What the model cannot see


class BagOfWords(Transformer):
    """The mean of the embeddings so far and a feed-forward part."""

    def features(self, tokens, cache=None):
        x = self.embed(tokens)
        x = mx.cumsum(x, axis=1) / mx.arange(1, x.shape[1] + 1)[:, None]
        return self.norm(x + self.blocks[0].feed_forward(self.blocks[0].feed_forward_norm(x)))


def without_rotation(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.attention.rope = False


FAULTS.add(
    "bag-of-words",
    "position-blind",
    "each position sees the mean of the embeddings so far and no order",
    lambda recipe: change(build_model=BagOfWords)(shape(layers=1)(recipe)),
)


@FAULTS.planted("one-layer-without-positions", "position-blind", "one layer of attention, and no positions")
def _(recipe: Recipe) -> Recipe:
    return rebuilt(without_rotation)(shape(layers=1)(recipe))


class ConstantTokens(Transformer):
    def embedded(self, tokens, positions):
        return super().embedded(mx.zeros_like(tokens), positions)


class PositionsOnly(Transformer):
    def embedded(self, tokens, positions):
        return mx.broadcast_to(self.position(positions), (*tokens.shape, self.config.dim))


class OverwrittenStream(Transformer):
    """Every head reads a learned start vector instead of the stream."""

    def __init__(self, config):
        super().__init__(config)
        self.start = mx.random.normal((config.dim,))

    def embedded(self, tokens, positions):
        return mx.broadcast_to(self.start, (*tokens.shape, self.config.dim))


FAULTS.add(
    "tokens-zeroed",
    "input-blind",
    "the ids are zeroed before the embedding",
    change(build_model=ConstantTokens),
)
FAULTS.add(
    "positions-without-tokens",
    "input-blind",
    "the embedding of the positions replaces that of the tokens",
    lambda recipe: change(build_model=PositionsOnly)(shape(positions="learned", tied=False)(recipe)),
)
FAULTS.add(
    "stream-overwritten",
    "input-blind",
    "a learned start vector overwrites the embedding",
    lambda recipe: change(build_model=OverwrittenStream)(shape(tied=False)(recipe)),
)


# Parameters that do not learn


class DeadRelu(FeedForward):
    """Biases of -100 before a ReLU."""

    def __init__(self, config):
        super().__init__(config)
        self.bias = mx.full((config.hidden,), -100.0)

    def __call__(self, x):
        return self.down(nn.relu(self.up(x) + self.bias))


def dead_feed_forward(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward = DeadRelu(config)


class Stopped(Block):
    """Its branches are evaluated outside the gradient."""

    def __call__(self, x, mask, layer, cache):
        return x + mx.stop_gradient(super().__call__(x, mask, layer, cache) - x)


class FirstBlockOnly(Transformer):
    """Writes ``self.blocks[0]`` in the loop where the block was meant."""

    def features(self, tokens, cache=None):
        x = self.dropout(self.embed(tokens))
        for layer in range(self.config.layers):
            x = self.blocks[0](x, "causal" if cache is None else self._mask_of(tokens, cache), layer, cache)
        if cache is not None:
            cache.offset = cache.offset + tokens.shape[1]
        return self.norm(x)

    def _mask_of(self, tokens, cache):
        index = mx.arange(tokens.shape[1], dtype=mx.int32)[None] + cache.offset
        return self.attention_mask(index, None, cache)


class ResultDropped(Block):
    """The feed-forward part is computed and its result forgotten."""

    def __call__(self, x, mask, layer, cache):
        x = x + self.attention(self.attention_norm(x), mask, layer, cache)
        self.feed_forward(self.feed_forward_norm(x))
        return x


class Hidden(Transformer):
    """Keeps its blocks in an attribute that MLX takes for private, so they are no parameters."""

    def __init__(self, config):
        super().__init__(config)
        self._layers = self.blocks
        del self.blocks

    @property
    def blocks(self):
        return self._layers


FAULTS.add(
    "relu-far-below-zero", "dead-parameters", "biases of -100 before a ReLU", rebuilt(dead_feed_forward)
)
FAULTS.add(
    "gradient-stopped",
    "dead-parameters",
    "a stop_gradient is left in the first block",
    rebuilt(lambda model, config: model.blocks.__setitem__(0, Stopped(config))),
)
FAULTS.add(
    "block-never-called",
    "dead-parameters",
    "the loop calls the first block each time",
    change(build_model=FirstBlockOnly),
)
FAULTS.add(
    "feed-forward-dropped",
    "dead-parameters",
    "the feed-forward part's result is not used",
    rebuilt(lambda model, config: model.blocks.__setitem__(1, ResultDropped(config))),
)
FAULTS.add(
    "blocks-frozen",
    "frozen-parameters",
    "freeze() of an earlier experiment is left on the blocks",
    rebuilt(lambda model, config: [block.freeze() for block in model.blocks]),
)
FAULTS.add(
    "embedding-frozen",
    "frozen-parameters",
    "the embedding is frozen at its random values",
    rebuilt(lambda model, config: model.embed.freeze()),
)
FAULTS.add(
    "everything-frozen-but-norms",
    "frozen-parameters",
    "all is frozen and only the norms are thawed",
    rebuilt(
        lambda model, config: (
            model.freeze(),
            model.apply_to_modules(
                lambda name, module: module.unfreeze() if isinstance(module, nn.RMSNorm) else None
            ),
        )
    ),
)
FAULTS.add(
    "blocks-in-private-attribute",
    "frozen-parameters",
    "the blocks are kept in self._layers, which MLX does not count among the parameters",
    change(build_model=Hidden),
)


# What is no language model


class LastPosition(Transformer):
    """Logits of the last position alone."""

    def __call__(self, tokens, cache=None):
        return super().__call__(tokens, cache)[:, -1]


class OtherWidth(Transformer):
    """The output matrix is fed rows of twice its width."""

    def __call__(self, tokens, cache=None):
        x = self.features(tokens, cache)
        return mx.concatenate([x, x], axis=-1) @ self.embed.weight.T


FAULTS.add(
    "last-position-only",
    "subject-error",
    "the model returns the logits of the last position alone",
    change(build_model=LastPosition),
)
FAULTS.add(
    "widths-disagree",
    "subject-error",
    "two layers disagree on the width, so the forward pass raises",
    change(build_model=OtherWidth),
)
