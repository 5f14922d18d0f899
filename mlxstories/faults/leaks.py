"""Faults by which a position sees later tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import kernels
from mlxstories.faults.fault import Faults, change
from mlxstories.faults.model import rebuilt
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import ROPE_BASE, Attention, Block

FAULTS = Faults("model")


# The causal mask


def masked_by(mask: Callable[[mx.array], mx.array | None]):
    """A transformer whose attention mask is a function of key position minus query position [T, T]."""

    class Masked(Transformer):
        def attention_mask(self, index, starts, cache):
            if cache is not None:
                return super().attention_mask(index, starts, cache)
            return mask(index[0][None, :] - index[0][:, None])

    return change(build_model=Masked)


FAULTS.add(
    "no-causal-mask",
    "future-leak",
    "attention has no causal mask: the 99.9 % validation accuracy of unseen stories",
    masked_by(lambda ahead: None),
)
FAULTS.add(
    "mask-off-by-one", "future-leak", "the mask allows the next token", masked_by(lambda ahead: ahead <= 1)
)
FAULTS.add(
    "mask-of-window",
    "future-leak",
    "a sliding window looks both ways",
    masked_by(lambda ahead: mx.abs(ahead) < 16),
)
FAULTS.add(
    "mask-in-blocks",
    "future-leak",
    "the mask is causal between blocks of 8 and open within them",
    masked_by(lambda ahead: ahead < 8 - mx.arange(ahead.shape[0])[:, None] % 8),
)
FAULTS.add(
    "soft-mask",
    "future-leak",
    "the mask adds -4 instead of minus infinity",
    rebuilt(lambda model, config: each_attention(model, config, softly(-4.0))),
)
FAULTS.add(
    "softer-mask",
    "future-leak",
    "the mask adds -10, which training learns to overcome (minGPT issue 75)",
    rebuilt(lambda model, config: each_attention(model, config, softly(-10.0))),
)
FAULTS.add(
    "mask-multiplied",
    "future-leak",
    "scores are multiplied by 0 and 1, so that the future keeps a weight of exp(0)",
    rebuilt(lambda model, config: each_attention(model, config, MultipliedMask)),
)
FAULTS.add(
    "softmax-over-queries",
    "future-leak",
    "the softmax normalises over queries instead of keys",
    rebuilt(lambda model, config: each_attention(model, config, SoftmaxOverQueries)),
)


def each_attention(model: Transformer, config: ModelConfig, attention: type, blocks=slice(None)) -> None:
    for block in model.blocks[blocks]:
        block.attention = attention(config)


class ByHand(Attention):
    """Attention written out, without a cache."""

    def __call__(self, x, mask, layer, cache):
        if cache is not None:
            return super().__call__(x, mask, layer, cache)
        queries, keys, values = (
            projection(x).reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        if self.rope:
            queries, keys = (kernels.rotate(part, 0, ROPE_BASE) for part in (queries, keys))
        return self.out(self.mix(queries, keys, values).swapaxes(1, 2).reshape(x.shape))

    def mix(self, queries, keys, values):
        """[B, H, T, D / H] three times to one."""
        scores = queries @ keys.swapaxes(-1, -2) / math.sqrt(queries.shape[-1])
        return self.weights(scores, mx.tri(scores.shape[-1])) @ values


def softly(penalty: float) -> type:
    """Attention whose mask adds a finite penalty to the scores of the future."""

    class SoftMask(ByHand):
        def weights(self, scores, past):
            return mx.softmax(scores + (1 - past) * penalty, axis=-1)

    return SoftMask


class MultipliedMask(ByHand):
    def weights(self, scores, past):
        return mx.softmax(scores * past, axis=-1)


class SoftmaxOverQueries(ByHand):
    def weights(self, scores, past):
        return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-2)


# Other ways into the future


def after_block(mixing: type, block: int = 0):
    """A plant that sends the output of a block through a mixing layer."""

    def edit(model: Transformer, config: ModelConfig) -> None:
        class Mixed(Block):
            def __init__(self, config):
                super().__init__(config)
                self.mixing = mixing(config.dim)

            def __call__(self, x, mask, layer, cache):
                return self.mixing(super().__call__(x, mask, layer, cache))

        model.blocks[block] = Mixed(config)

    return rebuilt(edit)


class NormOverTime(nn.Module):
    """Normalises over time as well as over features."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones((dim,))

    def __call__(self, x):
        return self.weight * x / mx.sqrt(x.square().mean(axis=(1, 2), keepdims=True) + 1e-5)


class ChunkMean(nn.Module):
    """Adds the mean of each chunk of 16 positions to all of them."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=False)

    def __call__(self, x):
        length = x.shape[1]
        padded = mx.pad(x, [(0, 0), (0, -length % 16), (0, 0)])
        means = padded.reshape(x.shape[0], -1, 16, x.shape[2]).mean(axis=2)
        return x + self.project(mx.repeat(means, 16, axis=1)[:, :length])


class CentredConvolution(nn.Module):
    """A convolution of three padded on both sides."""

    def __init__(self, dim: int):
        super().__init__()
        self.convolution = nn.Conv1d(dim, dim, 3, padding=1)

    def __call__(self, x):
        return x + nn.gelu(self.convolution(x))


class Fourier(nn.Module):
    """Mixes time by a Fourier transform (Lee-Thorp et al. 2021), as encoders do."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=False)

    def __call__(self, x):
        return x + self.project(mx.fft.fft(x, axis=1).real / math.sqrt(x.shape[1]))


class ReversedScan(nn.Module):
    """A running mean that runs from the end."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=False)

    def __call__(self, x):
        count = mx.arange(x.shape[1], 0, -1)[:, None]
        return x + self.project(mx.cumsum(x, axis=1, reverse=True) / count)


class HiddenLeak(CentredConvolution):
    """The convolution, its output switched off at first, so that nothing shows before training."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.gate = mx.zeros((dim,))

    def __call__(self, x):
        return x + self.gate * nn.gelu(self.convolution(x))


class WholeStory(nn.Module):
    """A summary of the whole row, gated by a zero-initialised matrix."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=False)
        self.project.weight = mx.zeros((dim, dim))

    def __call__(self, x):
        return x + self.project(x.max(axis=1, keepdims=True))


for name, mixing, block, description in (
    ("norm-over-time", NormOverTime, 0, "a norm takes its statistics over time"),
    ("chunk-mean", ChunkMean, 0, "a summary of each chunk of 16 reaches its own first positions"),
    ("centred-convolution", CentredConvolution, 0, "a convolution is padded on both sides"),
    ("fourier-mixing", Fourier, 0, "a Fourier transform mixes all positions"),
    ("reversed-scan", ReversedScan, 0, "a running mean runs from the end of the row"),
    (
        "leak-in-last-block",
        CentredConvolution,
        -1,
        "only the last block has a convolution padded on both sides",
    ),
    ("leak-behind-zero-gate", HiddenLeak, 0, "the leaking branch is zero-initialised: clean before training"),
    (
        "leak-behind-zero-matrix",
        WholeStory,
        -1,
        "a summary of the row enters through a zero-initialised matrix",
    ),
):
    FAULTS.add(name, "future-leak", description, after_block(mixing, block))
