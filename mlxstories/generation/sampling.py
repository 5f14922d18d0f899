"""Choosing the next token: small pure functions over logits [B, V], and their composition.

The order is that of Hugging Face transformers: penalties, temperature, top-k, top-p, min-p. A history is
int [B, L], newest token last, filled up with -1 in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mlxstories.backend import kernels
from mlxstories.errors import StoriesError


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen; the defaults draw from the model's own distribution.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the fewest tokens that hold this share of the probability, (0, 1].
        min_p: keep tokens at least this share as likely as the likeliest, [0, 1).
        repetition_penalty: divides the logit of tokens already in the story; 1 leaves them.
        no_repeat_ngram: forbid any sequence of so many tokens to occur twice; 0 allows it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    def __post_init__(self):
        for name, allowed, holds in (
            ("temperature", "0 or more", 0 <= self.temperature < math.inf),
            ("top_k", "0 (off) or more", self.top_k >= 0),
            ("top_p", "in (0, 1]", 0 < self.top_p <= 1),
            ("min_p", "in [0, 1)", 0 <= self.min_p < 1),
            ("repetition_penalty", "above 0", 0 < self.repetition_penalty < math.inf),
            ("no_repeat_ngram", "0 (off) or more", self.no_repeat_ngram >= 0),
        ):
            if not holds:
                raise StoriesError(f"{name} must be {allowed}; got {getattr(self, name)}")


Sampler = Callable[[mx.array, mx.array, mx.array], mx.array]


def make_sampler(config: SamplingConfig) -> Sampler:
    """The composition that ``config`` describes.

    Returns:
        ``(logits [B, V], history [B, L], keys uint32 [B, 2]) -> tokens int32 [B]``. Each row draws with its
        own key, so its token does not depend on the other rows.
    """

    def sample(logits: mx.array, history: mx.array, keys: mx.array) -> mx.array:
        logits = logits.astype(mx.float32)
        if config.repetition_penalty != 1:
            logits = repetition_penalty(logits, history, config.repetition_penalty)
        if config.no_repeat_ngram:
            logits = no_repeat_ngram(logits, history, config.no_repeat_ngram)
        if config.temperature == 0:
            return mx.argmax(logits, axis=-1).astype(mx.int32)
        logits = temperature(logits, config.temperature)
        if config.top_k:
            logits = top_k(logits, config.top_k)
        if config.top_p < 1:
            logits = top_p(logits, config.top_p)
        if config.min_p:
            logits = min_p(logits, config.min_p)
        return draw(logits, keys)

    return sample


def draw(logits: mx.array, keys: mx.array) -> mx.array:
    """One token int32 [B] a row from ``softmax(logits)``, by inverting the cumulative distribution at one number
    from the row's key. Gumbel noise would need a random number and two logarithms for every token."""
    weights = kernels.exp_nonpositive(logits - logits.max(axis=-1, keepdims=True))
    below = mx.cumsum(weights, axis=-1)
    share = mx.vmap(lambda key: mx.random.uniform(shape=(1,), key=key))(keys)
    # Neither the 1e-38 that a forbidden token may keep nor rounding may lead before the first or past the last
    # token that is allowed.
    share = mx.clip(share, 2**-24, 1 - 2**-23)
    return (below <= share * below[:, -1:]).sum(axis=-1).astype(mx.int32)


def temperature(logits: mx.array, value: float) -> mx.array:
    """``logits / value``, value > 0."""
    return logits / value


def top_k(logits: mx.array, k: int) -> mx.array:
    """Keep the k largest logits, and those equal to the smallest of them (Fan et al. 2018)."""
    k = min(k, logits.shape[-1])
    smallest = mx.topk(logits, k, axis=-1).min(axis=-1, keepdims=True)
    return mx.where(logits < smallest, -mx.inf, logits)


def top_p(logits: mx.array, p: float) -> mx.array:
    """Keep the fewest tokens whose probability reaches p (Holtzman et al. 2020, section 3.1)."""
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.take_along_axis(mx.softmax(logits, axis=-1), order, axis=-1)
    mass_before = mx.cumsum(probabilities, axis=-1, inclusive=False)
    kept = mx.put_along_axis(mx.zeros(logits.shape, mx.bool_), order, mass_before < p, axis=-1)
    return mx.where(kept, logits, -mx.inf)


def min_p(logits: mx.array, p: float) -> mx.array:
    """Keep tokens with at least p times the largest probability (Nguyen et al. 2024, section 3)."""
    return mx.where(logits < logits.max(axis=-1, keepdims=True) + math.log(p), -mx.inf, logits)


def repetition_penalty(logits: mx.array, history: mx.array, penalty: float) -> mx.array:
    """Divide the logits of tokens in the history by ``penalty`` (Keskar et al. 2019, section 4.1), or
    multiply where they are negative, so that a penalty above 1 always makes them less likely."""
    penalized = mx.where(logits > 0, logits / penalty, logits * penalty)
    return mx.where(_occurs(history, logits.shape), penalized, logits)


def no_repeat_ngram(logits: mx.array, history: mx.array, n: int) -> mx.array:
    """Forbid tokens that would complete n tokens which are in the history already (Paulus et al. 2018,
    section 2.5)."""
    length = history.shape[1]
    if n > length:
        return logits
    latest = history[:, length - n + 1 :]
    repeated = mx.all(latest >= 0, axis=1, keepdims=True)
    for place in range(n - 1):
        window = history[:, place : place + length - n + 1]
        repeated = repeated & (window == latest[:, place, None])
    forbidden = mx.where(repeated, history[:, n - 1 :], -1)
    return mx.where(_occurs(forbidden, logits.shape), -mx.inf, logits)


def _occurs(tokens: mx.array, shape) -> mx.array:
    """Which of the V tokens occur in each row of ``tokens`` [B, L]: bool [B, V]; -1 is no token."""
    rows, vocabulary = shape
    seen = mx.zeros((rows, vocabulary + 1), mx.bool_)
    seen = mx.put_along_axis(seen, mx.where(tokens < 0, vocabulary, tokens), mx.array(True), axis=1)
    return seen[:, :vocabulary]
