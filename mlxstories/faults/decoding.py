"""Faults of generation: a sound model, wrongly read out."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.faults.fault import Faults, change
from mlxstories.faults.recipe import generate
from mlxstories.model import KVCache, Transformer

FAULTS = Faults("evaluation and generation")


def generation(start, advance):
    """A plant of greedy decoding with another cache handling.

    ``start(cache)`` follows the prompt, ``advance(cache)`` every token.
    """

    def wrong(model, prompt, n):
        model.eval()
        cache, tokens, told = KVCache(model.config, 1), mx.array([prompt]), []
        for index in range(min(n, model.config.context - len(prompt) - 4)):
            best = mx.argmax(model(tokens, cache)[:, -1], axis=-1, keepdims=True)
            (advance if index else start)(cache)
            tokens = best.astype(mx.int32)
            told.append(int(best.item()))
        return told

    return change(generate=wrong)


def keep(cache):
    pass


def skip_position(cache):
    cache.offset = cache.offset + 1


def forget_prompt(cache):
    cache.keys = [k * 0 for k in cache.keys]
    cache.values = [v * 0 for v in cache.values]


def swap_layers(cache):
    cache.keys, cache.values = cache.keys[::-1], cache.values[::-1]


FAULTS.add(
    "cache-skips-a-position",
    "cache-mismatch",
    "the position is counted once too often after the prompt",
    generation(skip_position, keep),
)
FAULTS.add(
    "cache-forgets-prompt",
    "cache-mismatch",
    "the keys and values of the prompt are lost",
    generation(forget_prompt, keep),
)
FAULTS.add(
    "cache-of-another-layer",
    "cache-mismatch",
    "layers read each other's keys and values",
    generation(swap_layers, keep),
)


class PromptUnmasked(Transformer):
    """Behind a cache, every query of a call sees all of its keys."""

    def attention_mask(self, index, starts, cache):
        return super().attention_mask(index if cache is None else 0 * index + index.max(), starts, cache)


FAULTS.add(
    "cache-reads-prompt-unmasked",
    "cache-mismatch",
    "the prompt is read into the cache without a causal mask",
    change(build_model=PromptUnmasked),
)


def reading(choose):
    """A plant of decoding without a cache that chooses from logits [T, V] its own way."""

    def wrong(model, prompt, n):
        model.eval()
        tokens = list(prompt)
        for _ in range(min(n, model.config.context - len(prompt))):
            tokens.append(int(choose(model(mx.array([tokens]))[0]).item()))
        return tokens[len(prompt) :]

    return change(generate=wrong)


FAULTS.add(
    "worst-token", "generation-mismatch", "argmin for argmax", reading(lambda logits: mx.argmin(logits[-1]))
)
FAULTS.add(
    "second-best-token",
    "generation-mismatch",
    "the second best token is taken",
    reading(lambda logits: mx.argsort(logits[-1])[-2]),
)
FAULTS.add(
    "position-before",
    "generation-mismatch",
    "the logits of the position before the last are read",
    reading(lambda logits: mx.argmax(logits[max(-2, -len(logits))])),
)
FAULTS.add(
    "sampled-for-greedy",
    "generation-mismatch",
    "a temperature of 1 where greedy decoding was asked for",
    reading(lambda logits: mx.random.categorical(logits[-1])),
)


def padded_on_the_left(model, prompts, n):
    """Several prompts at once, the shorter ones filled up in front; nothing hides the filling."""
    if not isinstance(prompts[0], list):
        return generate(model, prompts, n)
    model.eval()
    width = max(len(prompt) for prompt in prompts)
    rows = mx.array([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    for _ in range(min(n, model.config.context - width)):
        best = mx.argmax(model(rows)[:, -1], axis=-1, keepdims=True).astype(rows.dtype)
        rows = mx.concatenate([rows, best], axis=1)
    return rows[:, width:].tolist()


FAULTS.add(
    "prompts-padded-unmasked",
    "generation-mismatch",
    "prompts of unequal length are padded on the left, and attention sees the padding",
    change(generate=padded_on_the_left),
)
