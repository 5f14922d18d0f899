"""Does decoding stay within the context, and tell as much as was asked for?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.generation.decoding import decoding
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "generation at the end of the context",
    rung="trained",
    causes=("generation-mismatch", "token-out-of-range"),
    needs=("generate",),
    unless=("cache-mismatch", "generation-mismatch", "stale-computation"),
)
def edge(bench: Bench, limits: Gauges) -> Verdict:
    """Continues a prompt that fills the row but for four tokens by eight, watches what is looked up in tables, and
    counts what comes back. To refuse, to stop early and to move a window along are all sound.

    A table of positions ends with the context, and MLX reads on past it without a word.

    Example: `model(tokens)` of a text that grows beyond the context; a limit of new tokens worked out before the
    prompt was cut.

    Fix: `model(tokens[-context:])`, or stop; count new tokens from where the prompt ends.
    """
    found = decoding(bench).edge
    if found is None:
        return skipped("refused, or rows are very long")
    if found.outside:
        place, size = found.outside[0]
        draft = (error if found.whole else warning)(
            "token-out-of-range",
            f"where a prompt of {found.prompt} tokens is continued by {found.asked}, decoding looks up row {place} of "
            f"a table of {size}: MLX reads past its end without a word",
            fix="cut the tokens to the context before each call, model(tokens[-context:])"
            if found.whole
            else "stop at the end of the context: this cache holds no more",
            where="generate",
            row=place,
            rows=size,
        )
        detail = f"it looks up row {place} of a table of {size}"
        return failed(detail, draft) if found.whole else passed(detail, draft)
    if found.told > found.asked:
        return failed(
            f"{found.told} tokens, asked for {found.asked}",
            error(
                "generation-mismatch",
                f"asked to continue a prompt of {found.prompt} tokens by {found.asked}, generate returns {found.told}",
                fix="count new tokens from where the prompt ends, after it was cut to the context",
                where="generate",
                asked=found.asked,
                told=found.told,
            ),
        )
    return passed(f"{found.told} of {found.asked} tokens")
