"""Whether a prefix alone gives the logits that it gives within a longer row."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.consistency import lengths
from mlxstories.ladder.checks.init.consistency import LIMITS, tolerance
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "a prefix alone gives the same logits",
    rung="init",
    causes=("length-dependent",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak"),
    quick=True,
    **LIMITS,
)
def any_length(bench: Bench, limits: Gauges) -> Verdict:
    """Shows the model prefixes of a row, alone, and compares with the same positions of the whole row.

    Text is written by growing a prefix: a model that says something else on shorter rows was not trained for what
    it is asked.
    Example: positions taken from the row's end, or heads split by a reshape that works for one length only.
    Fix: compute positions, masks and scales from each token's own place, never from the length of the row.
    """
    found = lengths(bench)
    judged = {n: change.judged(found.full_precision) for n, change in found.by_length.items()}
    if not judged:
        return skipped(f"the model takes rows of {found.full} tokens only")
    limit = tolerance(limits, found.full_precision)
    wrong = [n for n, change in judged.items() if limit.above(change)]
    worst = max(judged, key=judged.get)
    detail = f"{judged[worst]:.1e} of the logits' spread"
    if not wrong:
        return passed(detail)
    which = "each length tried" if len(wrong) == len(judged) else f"lengths {', '.join(map(str, wrong))}"
    return failed(
        detail,
        error(
            "length-dependent",
            f"the first {worst} tokens alone give logits that differ by {judged[worst]:.1e} of their spread from those "
            f"at the same positions of a row of {found.full} (so at {which}), although no later token matters",
            fix="compute positions, masks and scales from each token's own place, never from the length of the row",
            where="model",
            changes={str(n): change for n, change in judged.items()},
        ),
    )
