"""Whether each branch is added to the stream, and the stream goes on whole."""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.streams import streams, streams_dropped
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning
from mlxstories.ladder.where import place

_UNLESS = (
    *("token-out-of-range", "not-finite", "not-repeatable", "input-blind", "dead-parameters"),
    *("vanishing-gradient", "exploding-gradient", "frozen-parameters", "without-effect"),
)


@check("branches are added to the stream", rung="init", causes=("residual-left-out",), unless=_UNLESS)
def added_to_the_stream(bench: Bench, limits: Gauges) -> Verdict:
    """Follows sums through a forward pass. Where some branches of a model are added to what they have read, does
    another one, the same in every layer, take its place?

    What the layers below have found is lost there, but for what the branch lets through; the model learns, slower.
    A warning, since some architectures mean it.
    Example: `x = self.attention(self.norm(x))`, and `x = x + self.feed_forward(self.norm2(x))` after it.
    Fix: `x = x + self.attention(self.norm(x))`.
    """
    found = streams(bench)
    if found is None:
        return skipped("weights of 16 bits")
    detail = f"{found.added} branches are added"
    if not found.replaced:
        return passed(detail)
    line, times = next(iter(found.replaced.items()))
    return passed(
        f"{detail}, {sum(found.replaced.values())} are not",
        warning(
            "residual-left-out",
            f"what a branch returns takes the place of the stream that it has read, {times} times, while "
            f"{found.added} other branches are added to it: what was there before is lost",
            fix="add the branch to the stream: x = x + branch(norm(x))",
            where=place(line),
            replaced=times,
            added=found.added,
        ),
    )


@check("the stream is not dropped", rung="init", causes=("dropout-too-high",), unless=_UNLESS)
def not_dropped(bench: Bench, limits: Gauges) -> Verdict:
    """Follows sums through a forward pass. Does a dropout, the same in every layer, read the stream and not the branch?

    Dropout of a branch takes some of what a layer adds; dropout of the sum takes it from all that was found before, at
    each layer anew, and no residual connection brings it back. A warning, since the model learns, slower.
    Example: `x = self.dropout(x + self.attention(self.norm(x)))`.
    Fix: `x = x + self.dropout(self.attention(self.norm(x)))`.
    """
    found = streams_dropped(bench)
    if found is None:
        return skipped("weights of 16 bits")
    if not found:
        return passed("never")
    shares = [share for each in found.values() for share in each]
    gone = 1 - math.prod(1 - share for share in shares)
    return passed(
        f"{len(shares)} times",
        warning(
            "dropout-too-high",
            f"dropout comes after the addition, and reads the stream itself, {len(shares)} times: of what the "
            f"embedding tells, {gone:.0%} is taken away on its way through the layers",
            fix="apply dropout to what the branch returns: x = x + dropout(branch(norm(x)))",
            where=place(next(iter(found))),
            times=len(shares),
            gone=gone,
        ),
    )
