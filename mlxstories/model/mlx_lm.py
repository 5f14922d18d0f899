"""Any architecture of mlx-lm, small and with random weights, where our own transformer could stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxstories.backend import memory
from mlxstories.errors import StoriesError
from mlxstories.model.config import check_size, size_shape
from mlxstories.model.mlx_lm_arguments import LAYERS, Size, architecture, small_arguments

PREFIX = "mlx-lm:"


@dataclass(frozen=True)
class MlxLmConfig:
    """An architecture of mlx-lm and its arguments.

    These models know no stories: in a packed row attention crosses them, as with ``--across-stories``.

    Attributes:
        architecture: the module of ``mlx_lm.models``.
        vocab_size: V, tokens in the vocabulary.
        context: longest row, tokens.
        arguments: the fields of its ``ModelArgs``, as in a ``config.json``.
    """

    architecture: str
    vocab_size: int
    context: int
    arguments: dict[str, Any]

    arch: ClassVar[str] = "decoder"
    separator: ClassVar[None] = None

    def __post_init__(self):
        sizes = {"vocab_size": self.vocab_size, "context": self.context}
        layers = {name: self.arguments[name] for name in LAYERS if self.arguments.get(name) is not None}
        for name, value in {**sizes, **layers}.items():
            check_size(name, value)

    @classmethod
    def of_size(cls, name: str, size: str, vocab_size: int, context: int = 256, **shape: int) -> MlxLmConfig:
        """The architecture ``name`` in a named size, of which ``layers``, ``dim``, ``heads`` and ``hidden`` may differ.

        Raises:
            StoriesError: an unknown size, mlx-lm has no such architecture, or it has no part of another name in
                ``shape``.
        """
        parts = {**size_shape(size), **shape}
        refuse_parts(name, parts.keys() - {"layers", "dim", "heads", "hidden"})
        if parts["dim"] % (2 * parts["heads"]):
            raise StoriesError(f"dim / heads must be even; got {parts['dim']} / {parts['heads']}.")
        parts.setdefault("hidden", 2 * parts["dim"])
        for part, value in {**parts, "context": context}.items():
            check_size(part, value)
        arguments = small_arguments(name, Size(vocab_size, context=context, **parts))
        return cls(name, vocab_size, context, arguments)


def refuse_parts(architecture: str, parts: Iterable[str]) -> None:
    """Raises StoriesError if there are any: parts that mlx-lm's architectures do not take from us."""
    if options := [f"--{part.replace('_', '-')}" for part in sorted(parts)]:
        raise StoriesError(
            f"the parts of {PREFIX}{architecture} are those of mlx-lm: leave out {', '.join(options)}."
        )


class MlxLmModel(nn.Module):
    """A model of mlx-lm with our interface.

    Raises:
        StoriesError: mlx-lm cannot build it from these arguments.
    """

    def __init__(self, config: MlxLmConfig):
        super().__init__()
        self.config = config
        module = architecture(config.architecture)
        try:
            self.model = module.Model(module.ModelArgs.from_dict(config.arguments))
        except Exception as error:  # anything may be asked of arguments there
            reason = f"{type(error).__name__}: {error}"
            raise StoriesError(f"mlx-lm cannot build {PREFIX}{config.architecture}: {reason}.") from error

    def __call__(self, tokens: mx.array, cache: TokenCache | None = None) -> mx.array:
        """Logits [B, T, V] for int tokens [B, T]; with a cache, the tokens follow those that it holds."""
        if cache is None:
            return logits_of(self.model(tokens))
        return cache.follow(tokens, lambda row: logits_of(self.model(row)))

    def new_cache(self, batch_size: int, room: int | None = None) -> TokenCache:
        """An empty cache for ``batch_size`` rows of ``room`` tokens at first (None: of the context)."""
        config = self.config
        memory.require(  # every step computes the logits of whole rows
            4 * batch_size * config.context * config.vocab_size,
            f"continuing {batch_size:,} rows of {config.context:,} tokens",
            "take fewer, or a model of a smaller context",
        )
        return TokenCache(
            mx.zeros((batch_size, room or config.context), dtype=mx.int32), mx.array(0, dtype=mx.int32)
        )


def logits_of(output) -> mx.array:
    """The logits of what a model of mlx-lm returns, of a tuple the first item."""
    return output[0] if isinstance(output, tuple) else output


class TokenCache:
    """The tokens so far, from which each new one is computed afresh.

    The caches of mlx-lm change shape and live outside compiled functions; this one serves every architecture that
    is causal, at the cost of a whole row for each token.

    Attributes:
        tokens: int32 [B, room], zeros after the last.
        offset: int32 scalar, tokens held.
    """

    def __init__(self, tokens: mx.array, offset: mx.array):
        self.tokens, self.offset = tokens, offset

    @property
    def room(self) -> int:
        """Tokens that a row has places for."""
        return self.tokens.shape[1]

    def widen(self, room: int) -> None:
        """Make room for so many tokens in all."""
        self.tokens = mx.pad(self.tokens, ((0, 0), (0, room - self.room)))

    def follow(self, tokens: mx.array, logits) -> mx.array:
        """Add int tokens [B, T]; returns the part [B, T, V] of ``logits`` of the whole row that is theirs."""
        self.tokens = mx.slice_update(self.tokens, tokens.astype(mx.int32), self.offset, axes=(1,))
        whole = logits(self.tokens)
        shape = (whole.shape[0], tokens.shape[1], whole.shape[2])
        part = mx.slice(whole, self.offset, axes=(1,), slice_size=shape)
        self.offset = self.offset + tokens.shape[1]
        return part

    @property
    def state(self):
        """The arrays as a tree, to pass through a compiled function."""
        return self.tokens, self.offset

    @classmethod
    def from_state(cls, state) -> TokenCache:
        return cls(*state)


class MlxLmDecoder:
    """The next logits [B, V] of rows that go on by one token each."""

    def __init__(self, model: MlxLmModel):
        self.model = model

    def __call__(self, tokens: mx.array, cache: TokenCache) -> mx.array:
        """Add int32 [B] to the rows of the cache."""
        return self.model(tokens[:, None], cache)[:, -1]
