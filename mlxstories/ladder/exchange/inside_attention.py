"""Small reversible changes of any attention, made where the scores become shares or the kernel is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlxstories.ladder.exchange.intervention import Intervention, Site
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import stack

_TIMES = 8.0
_NEARNESS = 0.25  # taken from a score for each place further back
_BANNED = -1e4  # scores below are a mask's


def for_attention() -> list[Intervention]:
    """Changes of scores and of what they are added to."""
    return [
        _scores(
            f"attention scores {words} by 8",
            lambda scores, times=times: scores * times,
            lambda given, _, times=times: {**given, "scale": given["scale"] * times},
        )
        for words, times in (("divided", 1 / _TIMES), ("multiplied", _TIMES))
    ] + [
        _scores("attention plainly causal", _causal, lambda given, _: {**given, "mask": "causal"}),
        _scores("attention without the part of its scores that all rows share", _unbiased, None),
        _scores("attention scores lowered with the distance", _lowered, _lowered_fused),
    ]


def _scores(name: str, change: Callable[[mx.array], mx.array], fused: Callable | None) -> Intervention:
    """A change of attention scores: those that a softmax gets, and the arguments of the fused kernel."""
    site = Site(part="model")

    def noted() -> None:
        if "file" not in site and (lines := stack(sys._getframe(2))):
            site.update(file=lines[-1].file, line=lines[-1].line)

    @contextmanager
    def inside() -> Iterator[None]:
        softmax, attend = mx.softmax, mx.fast.scaled_dot_product_attention

        def weights(scores, axis=None, **rest):
            pairs = scores.ndim >= 3 and scores.shape[-1] == scores.shape[-2] > 1
            if pairs:
                noted()
                scores = change(scores)
            return softmax(scores, axis=axis, **rest)

        def mixed(queries, keys, values, *, scale, mask=None, **rest):
            noted()
            given = {"scale": scale, "mask": mask, **rest}
            return attend(queries, keys, values, **(fused(given, keys.shape[-2]) if fused else given))

        with Patches() as patches:
            patches.replace(mx, "softmax", weights)
            patches.replace(mx.fast, "scaled_dot_product_attention", mixed)
            yield

    return Intervention(name, "model", around=inside, site=site)


def _causal(scores: mx.array) -> mx.array:
    return mx.where(mx.tri(scores.shape[-1], dtype=mx.bool_), scores, -mx.inf)


def _unbiased(scores: mx.array) -> mx.array:
    # What all rows have in common at a pair of places is a bias of places, not of contents.
    shown = scores > _BANNED
    common = mx.stop_gradient(mx.where(shown, scores, 0).mean(axis=0, keepdims=True))
    return mx.where(shown, scores - common, scores)


def _nearness(length: int) -> mx.array:
    back = mx.arange(length)[:, None] - mx.arange(length)[None]
    return -_NEARNESS * mx.maximum(back, 0).astype(mx.float32)


def _lowered(scores: mx.array) -> mx.array:
    return scores + _nearness(scores.shape[-1]).astype(scores.dtype)


def _lowered_fused(given: dict, length: int) -> dict:
    old, near = given["mask"], _nearness(length)
    if old is None:
        return {**given, "mask": near}
    if isinstance(old, mx.array) and old.dtype != mx.bool_:
        return {**given, "mask": old + near.astype(old.dtype)}
    shown = mx.tri(length, dtype=mx.bool_) if isinstance(old, str) else old
    return {**given, "mask": mx.where(shown, near, -mx.inf)}
