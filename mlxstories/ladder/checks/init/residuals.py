"""Whether each branch is added to the stream."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.streams import streams
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed, skipped, warning
from mlxstories.ladder.where import place


@check(
    "branches are added to the stream",
    rung="init",
    causes=("residual-left-out",),
    unless=(
        *("token-out-of-range", "not-finite", "not-repeatable", "input-blind", "dead-parameters"),
        *("vanishing-gradient", "exploding-gradient", "frozen-parameters", "without-effect"),
    ),
)
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
