"""What a model is: its shape and its parts, checked when it is written down."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.bounds import check_choice, check_number
from mlxstories.errors import StoriesError

MOST = 10_000_000  # of any number that shapes a model
MOST_CONTEXT = 1_000_000  # tokens, for which weights need not be as long
MOST_MIXING = 16  # tokens, each of which is a pass over the stream
MOST_LAYERS = 1000  # each of which is an object, before a weight is drawn
CHOICES = {
    "arch": ("decoder", "encoder"),
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned", "sinusoidal"),
    "feed_forward": ("gelu", "swiglu", "relu2"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Shape and parts of a pre-norm transformer; the defaults are llama's parts.

    Attributes:
        vocab_size: V, tokens in the vocabulary.
        dim: D, width of the residual stream.
        layers: blocks.
        heads: attention heads; ``dim / heads`` is the width of a head.
        hidden: width of the feed-forward part. None takes ``2 * dim``, and two thirds of it, rounded to a
            multiple of 8, for "swiglu", whose third matrix then costs nothing (Shazeer 2020, section 3).
            It is stored as a number, so ``dataclasses.replace`` keeps it.
        context: longest row, tokens.
        arch: "decoder" sees the past, "encoder" both sides.
        norm: "rms" (Zhang and Sennrich 2019) or "layer" (Ba et al. 2016).
        positions: "rope" (Su et al. 2021), "learned", or "sinusoidal" (Vaswani et al. 2017, section 3.5).
        feed_forward: "gelu" (tanh form), "swiglu", or "relu2" (So et al. 2021).
        tied: the output matrix is the embedding.
        dropout: share of activations dropped on the embedding and on every residual branch, [0, 1).
        qk_norm: parameter-free RMS norm of queries and keys (Henry et al. 2020). It stands before the
            rotation, which keeps lengths, so the order makes no difference.
        mixing: tokens, itself included, that each takes in before attention (see `mixing.Mixing`); 1: only itself.
        separator: id of the token that starts a story; attention and absolute positions stay within a
            story. None: a row is one text.
    """

    vocab_size: int
    dim: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int | None = None
    context: int = 256
    arch: str = "decoder"
    norm: str = "rms"
    positions: str = "rope"
    feed_forward: str = "swiglu"
    tied: bool = True
    dropout: float = 0.0
    qk_norm: bool = False
    mixing: int = 1
    separator: int | None = None

    def __post_init__(self):
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("vocab_size", "dim", "layers", "heads", "context"):
            check_size(name, getattr(self, name))
        if self.hidden is None:
            object.__setattr__(self, "hidden", _default_hidden(self.dim, self.feed_forward))
        check_size("hidden", self.hidden)
        check_mixing(self.mixing)
        if self.mixing > 1 and self.arch == "encoder":
            raise StoriesError(
                "mixing takes in earlier tokens alone, and an encoder sees both sides; take mixing 1"
            )
        if self.dim % self.heads:
            raise StoriesError(
                f"heads must divide dim; got {self.heads} heads for a width of {self.dim}. "
                f"Take one of {', '.join(map(str, _divisors(self.dim)))}"
            )
        if self.positions == "rope" and self.dim // self.heads % 2:
            raise StoriesError(
                f"rope rotates pairs, so dim / heads must be even; got {self.dim} / {self.heads}; "
                "change heads, or take positions learned"
            )
        if self.positions == "sinusoidal" and self.dim % 2:
            raise StoriesError(f"positions 'sinusoidal' needs an even dim; got {self.dim}")
        if not 0 <= self.dropout < 1:
            raise StoriesError(f"dropout must be in [0, 1); got {self.dropout}")
        if self.separator is not None and not 0 <= self.separator < self.vocab_size:
            raise StoriesError(
                f"separator must be a token id in [0, {self.vocab_size}) or None; got {self.separator}"
            )


def check_size(name: str, value: object) -> None:
    """Raises StoriesError unless ``value`` can be the number called ``name`` of a model."""
    most = MOST_LAYERS if "layer" in name else MOST_CONTEXT if name == "context" else MOST
    check_number(name, value, at_least=1, at_most=most, whole=True)


def check_mixing(value: object) -> None:
    """Raises StoriesError unless so many tokens can be mixed."""
    check_number("mixing", value, at_least=1, at_most=MOST_MIXING, whole=True)


def _default_hidden(dim: int, feed_forward: str) -> int:
    return max(8, round(4 * dim / 3 / 8) * 8) if feed_forward == "swiglu" else 2 * dim


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0][:8]


# name: layers, dim, heads
SIZES = {
    "debug": {"layers": 2, "dim": 64, "heads": 4},
    "small": {"layers": 4, "dim": 128, "heads": 4},
    "base": {"layers": 4, "dim": 256, "heads": 8},
    "large": {"layers": 8, "dim": 512, "heads": 8},
}


def size_shape(name: str) -> dict[str, int]:
    """Layers, dim and heads of a named size.

    Raises:
        StoriesError: for an unknown size.
    """
    check_choice("size", name, SIZES)
    return SIZES[name]


def size_config(name: str, vocab_size: int, **overrides) -> ModelConfig:
    """The configuration of a named size: "debug", "small", "base" (4.2 M parameters with a vocabulary of
    8192) or "large"; ``overrides`` are fields of `ModelConfig`.

    Raises:
        StoriesError: for an unknown size, or what `ModelConfig` refuses.
    """
    return ModelConfig(vocab_size, **{**size_shape(name), **overrides})
