"""Does decoding several prompts at once give each its own continuation?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.generation.decoding_rows import rows_decoded
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "prompts of unequal length",
    rung="trained",
    causes=("generation-mismatch",),
    needs=("generate",),
    unless=("cache-mismatch", "generation-mismatch", "stale-computation", "batch-leak", "length-dependent"),
    tie=Limit(1e-3, "of the logits' spread"),
)
def unequal_prompts(bench: Bench, limits: Gauges) -> Verdict:
    """Where ``generate`` takes a list of prompts, continues two of one length, then the same with one of them cut, and
    holds each new token against the argmax after its own row.

    Rows of unequal length are padded, and what fills them up must be hidden from attention and must not count as a
    position.

    Example: padding on the left without a mask; `logits[:, -1]` of rows that are padded on the right.

    Fix: pad on the left, mask the padding in every call, and count positions from the first real token.
    """
    found = rows_decoded(bench)
    if found is None:
        return skipped("generate takes one prompt at a time")
    wrong = {
        kind: sum(not limits.tie.below(tie) for row in rows for tie in row)
        for kind, rows in (("equal", found.equal), ("unequal", found.unequal))
    }
    total = sum(len(row) for row in found.unequal)
    detail = f"{wrong['unequal']} of {total} tokens differ"
    if wrong["equal"]:
        return skipped("prompts of equal length are not continued as they are alone")
    if not wrong["unequal"]:
        return passed(detail)
    draft = error(
        "generation-mismatch",
        f"of two prompts continued in one call, {wrong['unequal']} of {total} tokens are not the argmax after their "
        "own row where one prompt is shorter, and all are where both are as long",
        fix="pad on the left, mask the padding in every call, and count positions from the first real token",
        where="generate",
        wrong=wrong["unequal"],
        tokens=total,
    )
    return failed(detail, draft)
