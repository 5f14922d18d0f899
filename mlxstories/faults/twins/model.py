"""Twins of faults of the model and of the loss."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlxstories.batch import Batch
from mlxstories.data.tokenizer import MASK
from mlxstories.faults.decoding import reading
from mlxstories.faults.fault import change, minimising, phase, shape
from mlxstories.faults.leaks import ByHand, each_attention, masked_by
from mlxstories.faults.model import rebuilt, without_rotation
from mlxstories.faults.numerics import initialised
from mlxstories.faults.optimisation import mean_nats
from mlxstories.faults.twins.twin import Twins
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.transformer import sinusoids

TWINS = Twins()


class NeverMask(Transformer):
    """Sets the logit of a token that no story holds to -inf."""

    def head(self, features):
        logits = super().head(features)
        return mx.where(mx.arange(logits.shape[-1]) == MASK, -mx.inf, logits)


class HeadsFolded(ByHand):
    """Folds rows and heads into one axis, and unfolds them the same way."""

    def mix(self, queries, keys, values):
        folded = (part.reshape(-1, *part.shape[2:]) for part in (queries, keys, values))
        return super().mix(*folded).reshape(queries.shape)

    def weights(self, scores, past):
        return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class LogProbabilities(Transformer):
    def head(self, features):
        logits = super().head(features)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


class SoftCap(Transformer):
    """Caps logits softly at 30, as Gemma 2 does."""

    def head(self, features):
        return 30 * mx.tanh(super().head(features) / 30)


class Leaky(Transformer):
    def head(self, features):
        return nn.leaky_relu(super().head(features), 0.3)


class Normed(nn.Module):
    """A branch behind which stands a layer norm of gain 0, so that the block begins as nothing."""

    def __init__(self, inner: nn.Module, width: int):
        super().__init__()
        self.inner, self.norm = inner, nn.LayerNorm(width)
        self.norm.weight = mx.zeros_like(self.norm.weight)

    def __call__(self, x):
        return self.norm(self.inner(x))


def normed_to_nothing(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward = Normed(block.feed_forward, config.dim)


class Cosines(Transformer):
    """Logits are cosines of what the model says and each token's vector, times 20."""

    def head(self, features):
        features, tokens = (
            a * mx.rsqrt((a * a).sum(-1, keepdims=True) + 1e-6) for a in (features, self.embed.weight)
        )
        return 20 * features @ tokens.T


def zero_head(model: Transformer, config: ModelConfig) -> None:
    model.head_projection.weight = mx.zeros_like(model.head_projection.weight)


def zero_branches(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        for layer in (block.attention.out, block.feed_forward.down):
            layer.weight = mx.zeros_like(layer.weight)


def sinusoidal_table(model: Transformer, config: ModelConfig) -> None:
    model.position.weight = 0.02 * sinusoids(mx.arange(config.context), config.dim)
    model.position.freeze()


def log_likelihood(model, batch: Batch) -> mx.array:
    logits = model(batch.inputs)
    scores = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    told = mx.take_along_axis(scores, batch.targets[..., None], axis=-1).squeeze(-1)
    return (told * batch.mask).sum() / batch.mask.sum()


decode_anew = reading(lambda logits: mx.argmax(logits[-1]))  # the whole text again for every token

TWINS.add(
    "not-finite",
    "never-told-token",
    "the logit of a token that is never a target is -inf",
    change(build_model=NeverMask),
)
TWINS.add(
    "batch-leak",
    "heads-folded",
    "attention folds rows and heads into one axis",
    rebuilt(lambda model, config: each_attention(model, config, HeadsFolded)),
)
TWINS.add(
    "future-leak",
    "causal-window",
    "a sliding window looks back alone",
    masked_by(lambda ahead: (ahead <= 0) & (ahead > -16)),
    decode_anew,
)
TWINS.add(
    "input-blind",
    "zero-head",
    "the output matrix starts at zero, so that nothing shows in the first logits",
    shape(tied=False),
    rebuilt(zero_head),
)
TWINS.add(
    "position-blind",
    "two-layers-without-positions",
    "no positions, but two causal layers, which can count",
    rebuilt(without_rotation),
)
TWINS.add(
    "loss-sign",
    "minus-log-likelihood",
    "the loss is minus the mean log-likelihood, written by hand",
    minimising(lambda model, batch: -log_likelihood(model, batch)),
)
TWINS.add(
    "double-softmax",
    "log-probabilities",
    "the model returns log-probabilities, which a softmax leaves as they are",
    change(build_model=LogProbabilities),
)
TWINS.add(
    "bounded-logits",
    "leaky-logits",
    "a leaky ReLU behind the output layer, which bends logits and cuts none off",
    change(build_model=Leaky),
)
TWINS.add(
    "bounded-logits",
    "cosines-times-20",
    "logits are cosines times 20, which is room enough",
    change(build_model=Cosines),
)
TWINS.add(
    "bad-initialization",
    "every-matrix-at-0.02",
    "every matrix starts at N(0, 0.02²), as in GPT-2",
    initialised(lambda weight: 0.02 * mx.random.normal(weight.shape)),
)
TWINS.add(
    "bad-initialization",
    "branches-normed-to-nothing",
    "branches end in norms whose gains begin at 0",
    rebuilt(normed_to_nothing),
)
TWINS.add(
    "exploding-gradient",
    "loss-summed",
    "the loss is a sum over tokens: gradients a thousand times as long, which Adam does not mind",
    minimising(lambda model, batch: mean_nats(model, batch) * batch.mask.sum()),
    phase(clip_norm=None),
)
TWINS.add(
    "vanishing-gradient",
    "zero-branches",
    "every branch ends in a matrix of zeros, and its inner weights wait for one step",
    rebuilt(zero_branches),
)
TWINS.add(
    "dead-parameters",
    "vocabulary-rounded-up",
    "the vocabulary is rounded up to a multiple of 1024: some ids never occur",
    shape(tied=False),
    lambda recipe: shape(vocab_size=-(-recipe.config.vocab_size // 1024) * 1024)(recipe),
)
TWINS.add(
    "frozen-parameters",
    "frozen-sinusoids",
    "a table of sinusoids is frozen",
    shape(positions="learned"),
    rebuilt(sinusoidal_table),
)
TWINS.add("cannot-overfit", "cap-of-30", "a soft cap of 30 on the logits", change(build_model=SoftCap))
TWINS.add(
    "behind-reference",
    "one-block",
    "a single block: thin, and a plain decoder of its size learns no faster",
    shape(layers=1),
)
TWINS.add(
    "ahead-of-reference",
    "three-blocks",
    "a third block, which a plain decoder of its size has as well",
    shape(layers=3),
)
