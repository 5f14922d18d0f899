"""Telling stories: the decoding loop around the model's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import mlx.core as mx
import numpy as np

from mlxstories.backend import kernels
from mlxstories.errors import StoriesError
from mlxstories.generation.sampling import Sampler, SamplingConfig, make_sampler
from mlxstories.model import Transformer, decoder_of

BLOCK = 64  # tokens by which the room in a cache grows

Reason = Literal["end", "max_tokens", "context"]


@dataclass(frozen=True)
class Generated:
    """The continuation of one prompt.

    Attributes:
        tokens: ids after the prompt, END left out.
        reason: why it stopped: at END, at ``max_tokens``, or because the context is full.
    """

    tokens: list[int]
    reason: Reason

    @property
    def finished(self) -> bool:
        """The story came to its end."""
        return self.reason == "end"


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: SamplingConfig,
    seed: int = 0,
    end: int = 0,
) -> list[Generated]:
    """Continue each prompt until END, ``max_tokens`` or the end of the context.

    A prompt is the beginning of a story without END, which is put in front; an empty one asks for a whole
    story. The same seed gives the same texts, and a row's text does not depend on how many follow it.

    Raises:
        StoriesError: for an encoder, a prompt longer than the context or with ids outside the vocabulary,
            or numbers out of range.
    """
    tokens: list[list[int]] = [[] for _ in prompts]
    reasons: list[Reason | None] = [None for _ in prompts]
    first = [len(prompt) + 1 for prompt in prompts]  # position of the first token of our own
    for position, column in _decode(model, prompts, max_tokens, sampling, seed, end):
        for row, token in enumerate(column):
            if reasons[row] or position < first[row]:
                continue
            if token == end:
                reasons[row] = "end"
                continue
            tokens[row].append(int(token))
            if len(tokens[row]) == max_tokens:
                reasons[row] = "max_tokens"
            elif position == model.config.context:
                reasons[row] = "context"
        if all(reasons):
            break
    ended = cast("list[Reason]", reasons)  # all of them, at the end of the context at the latest
    return [Generated(*pair) for pair in zip(tokens, ended, strict=True)]


def stream(
    model: Transformer,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampling: SamplingConfig,
    seed: int = 0,
    end: int = 0,
    row: int = 0,
) -> Iterator[int]:
    """The tokens that `generate` gives for its prompt number ``row``, each as soon as it is chosen."""
    for position, column in _decode(model, [prompt], max_tokens, sampling, seed, end, row):
        if position > len(prompt):
            if column[0] == end:
                return
            yield int(column[0])


def _decode(model, prompts, max_tokens, sampling, seed, end, first_row=0) -> Iterator[tuple[int, np.ndarray]]:
    """Position and tokens int32 [B] there, from the first position after the shortest prompt on.

    All rows stand at the same position. Rows whose prompt is longer are fed the prompt there, whatever
    they would have said, so that one step with fixed shapes serves every length.
    """
    _check(model, prompts, max_tokens, seed)
    if not prompts:
        return
    kernels.prepare()
    model.new_cache(len(prompts))  # refused here if all rows together are too much
    context, lengths = model.config.context, [len(prompt) + 1 for prompt in prompts]
    forced = np.full((len(prompts), context + 1), -1, dtype=np.int32)
    for row, prompt in enumerate(prompts):
        forced[row, : lengths[row]] = [end, *prompt]
    shortest, last = min(lengths), min(max(lengths) + max_tokens - 1, context)
    rows = range(first_row, first_row + len(prompts))
    # a random 64-bit key a row, to which the position is added: no draw depends on the other rows
    keys = mx.stack([mx.random.split(mx.random.key(seed + (row << 32)))[0] for row in rows])
    was_training = model.training
    try:
        model.eval()
        decoder, sample = decoder_of(model), make_sampler(sampling)
        streams = kernels.streams()[: len(prompts)]
        shares = np.array_split(np.arange(len(prompts)), len(streams))
        parts = [
            _Rows(decoder, sample, forced[share], keys[share[0] : share[-1] + 1], shortest, end, stream)
            for share, stream in zip(shares, streams, strict=True)
        ]
        for position in range(shortest, last + 1):
            ahead = position if position < last else None
            yield position, np.concatenate([part.advance(ahead) for part in parts])
    finally:
        model.train(was_training)


class _Rows:
    """Some of the rows on a stream of their own: where they stand, and the compiled step to the next position."""

    def __init__(self, decoder, sample: Sampler, forced: np.ndarray, keys, shortest: int, end: int, stream):
        self.stream = stream
        model = decoder.model
        self.context = model.config.context
        cache = model.new_cache(len(forced), self._room(shortest))
        kind = type(cache)  # the step must not hold the cache itself

        def choose(logits, position, history, keys, forced):
            drawn = sample(logits, history, keys + mx.stack([mx.zeros_like(position), position]))
            given = mx.take(forced, position, axis=1)
            token = mx.where(given < 0, drawn, given)
            history = mx.concatenate([history[:, 1:], mx.where(token == end, -1, token)[:, None]], axis=1)
            return token, history

        @mx.compile
        def step(token, history, state, keys, forced):
            cache = kind.from_state(state)
            logits = decoder(token, cache)
            token, history = choose(logits, cache.offset.astype(mx.uint32), history, keys, forced)
            return token, history, cache.state

        with mx.stream(stream):
            # END starts the story and is no part of its text: penalties must not keep it from ending
            told = np.concatenate([np.full_like(forced[:, 1:], -1), forced[:, 1:shortest]], axis=1)
            history = mx.array(told[:, -model.config.context :])
            logits = model(mx.array(forced[:, :shortest]), cache)[:, -1]
            self.keys, self.forced = keys, mx.array(forced)
            position = cache.offset.astype(mx.uint32)
            self.token, self.history = choose(logits, position, history, keys, self.forced)
            self.state = cache.state
            mx.async_eval(self.token, self.history, self.state)
        self._step, self._kind = step, kind

    def _room(self, tokens: int) -> int:
        """How many tokens the cache has room for when it holds so many, whatever is still to come."""
        return min(-(-tokens // BLOCK) * BLOCK, self.context)

    def advance(self, held: int | None) -> np.ndarray:
        """The tokens int32 [rows] chosen last; with ``held`` tokens in the cache, the next position is under way then,
        and with None there is none."""
        chosen = kernels.before_next_step(self.token)
        if held is not None:
            with mx.stream(self.stream):
                token, history, state = self.token, self.history, self._wide_enough(self.state, held + 1)
                del self.history, self.state  # so that the cache can be updated in place
                self.token, self.history, self.state = self._step(
                    token, history, state, self.keys, self.forced
                )
                del token, history, state
                mx.async_eval(self.token, self.history, self.state)
        return np.array(chosen)

    def _wide_enough(self, state, tokens: int):
        """The state of a cache that has room for so many tokens."""
        cache, room = self._kind.from_state(state), self._room(tokens)
        if cache.room == room:
            return state
        cache.widen(room)
        return cache.state


def _check(model: Transformer, prompts, max_tokens: int, seed: int) -> None:
    config = model.config
    if config.arch == "encoder":
        raise StoriesError(
            "an encoder cannot tell stories: it fills gaps from both sides and never learnt to go on; "
            "train with --arch decoder"
        )
    if max_tokens < 1:
        raise StoriesError(f"max_tokens must be at least 1; got {max_tokens}")
    if not 0 <= seed < 1 << 32:
        raise StoriesError(f"seed must be in [0, 2^32); got {seed}")
    for prompt in prompts:
        if len(prompt) >= config.context:
            raise StoriesError(
                f"the prompt has {len(prompt)} tokens and the model's context is {config.context} with the "
                f"story's start; shorten it to at most {config.context - 1}"
            )
        if not all(0 <= token < config.vocab_size for token in prompt):
            raise StoriesError(
                f"the prompt has token ids outside [0, {config.vocab_size}); tokenize it again"
            )
