"""What decoding behind a cache does otherwise than the full forward pass, in words."""

from __future__ import annotations

from typing import NamedTuple

from mlxstories.ladder.bench.generation.cached import CachedSteps
from mlxstories.ladder.bench.generation.cached_reading import Odd
from mlxstories.ladder.limits import Gauge


class Words(NamedTuple):
    """Half a sentence of what was measured, the mend, and figures."""

    told: str
    fix: str
    evidence: dict


def in_words(found: CachedSteps, apart: Gauge, left: Gauge) -> Words | None:
    """The case that an exchange shows, or None; by ``apart``, a change of a logit in the logits' spread, and ``left``,
    the share of it that an exchange may leave."""
    if found.again:
        return Words(
            "after the prompt the model is given the prompt's last token a second time",
            "read the prompt once, and go on with the token that its last logits choose",
            {},
        )
    if not apart.above(found.change):
        return None
    one_by_one = found.alone is not None and not apart.above(found.alone)
    if one_by_one and found.ahead is not None and apart.above(found.ahead):
        return _unmasked(found)
    if found.odd and found.odd.told is None:
        return _no_position(found, found.odd)
    if found.odd and left.below(found.mended / found.change):
        return _odd_position(found, found.odd)
    return _prompt(found) if one_by_one else _lost(found, apart)


def _unmasked(found: CachedSteps) -> Words:
    return Words(
        f"a prompt of {found.prompt} tokens is read into the cache without a causal mask: the logits of its earlier "
        "places change with its last token, and read one by one the same tokens give those of the full pass",
        "mask the prompt behind the cache too: its token i sees the keys held before, and those of the prompt up to i",
        {"change": found.change, "change_by_a_later_token": found.ahead, "change_one_by_one": found.alone},
    )


def _prompt(found: CachedSteps) -> Words:
    return Words(
        f"a prompt of {found.prompt} tokens read at once gives other logits than the full pass, and the same tokens "
        "read one by one give the same",
        "compare the pass that reads the prompt with the full one: its mask, its positions, and what it leaves in the "
        "cache",
        {"change": found.change, "change_one_by_one": found.alone},
    )


def _no_position(found: CachedSteps, odd: Odd) -> Words:
    return Words(
        f"a single token behind the cache looks up no position, where the full pass looks up row {odd.right} of "
        "a table",
        "give a single token its position too: the number of tokens already cached",
        {"change": found.change, "right_position": odd.right},
    )


def _odd_position(found: CachedSteps, odd: Odd) -> Words:
    told, right = odd.told, odd.right
    what = (
        f"row {told} of a table of positions is looked up where the full pass looks up row {right}"
        if odd.table
        else f"queries or keys are turned as at position {told} where {right} tokens are cached"
    )
    return Words(
        f"{what}; with the positions of the full pass the largest change of a logit falls from {found.change:.2g} to "
        f"{found.mended:.1g} of their spread",
        "count positions from the tokens already cached: offset = their number, read before the cache grows",
        {"position": told, "right_position": right, "change": found.change, "change_in_place": found.mended},
    )


def _lost(found: CachedSteps, apart: Gauge) -> Words | None:
    pairs = zip(found.reach, found.whole_reach, strict=True)
    lost = [
        place for place, (step, whole) in enumerate(pairs) if apart.above(whole) and not apart.above(step)
    ]
    if not lost:
        return None
    evidence = {"change": found.change, "places_lost": lost}
    if len(lost) == found.prompt and found.handed:
        return Words(
            f"the step after a prompt of {found.prompt} tokens depends on none of them, although the cache that it is "
            "given holds them: the model does not read it",
            "let attention take the keys and values that the cache hands back, k, v = cache.update_and_fetch(k, v), "
            "and its mask show them",
            {**evidence, "part": "model"},
        )
    if len(lost) == found.prompt:
        return Words(
            f"the step after a prompt of {found.prompt} tokens depends on none of them",
            "hand the same cache to every call, and keep in it what the prompt has put there",
            evidence,
        )
    return Words(
        f"the step after a prompt of {found.prompt} tokens does not depend on those at places "
        f"{', '.join(map(str, lost))}, on which the full pass does",
        "let a single token see all keys held: no mask for it, or one aligned at the bottom right, "
        "mx.tril(ones, k=keys - queries)",
        evidence,
    )
