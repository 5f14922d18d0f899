"""Whether validation can be read more than once."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import val_again
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check(
    "validation can be repeated",
    rung="data",
    causes=("constant-batches",),
    needs=("val_batches",),
    unless=("token-out-of-range",),
    quick=True,
)
def again(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the validation batches, and then asks for the first of them again.

    An iterator is empty after one pass: every validation after the first averages nothing, and reports a loss of 0 or
    the same figure for ever.
    Example: `val_batches=lambda: loader`, with one generator made outside.
    Fix: make `val_batches` a function that starts a new pass on every call.
    """
    if val_again(bench):
        return passed()
    return failed(
        "nothing the second time",
        error(
            "constant-batches",
            "val_batches yields nothing the second time it is called: one iterator serves every validation, and is "
            "empty after the first",
            fix="make val_batches a function that starts a new pass over the validation rows on every call",
            where="val_batches",
        ),
    )
