"""Whether the untrained model's logits, and the loss of its first batches, are numbers at all."""

from __future__ import annotations

import math

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.untrained import finiteness, first_losses
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed

_MEANINGLESS = ("token-out-of-range", "not-finite")


@check("logits finite", rung="init", causes=("not-finite",), unless=_MEANINGLESS, quick=True)
def logits_finite(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Looks for NaN among the parameters, for NaN and +inf among the logits of the fullest and the shortest rows, and
    for real targets that were given no chance at all.

    ## Why it is bad
    One NaN spreads through every parameter at the first update.

    ## Example
        scores = mx.where(mask, scores, -mx.inf)    # a row masked throughout: softmax gives NaN

    ## Fix
    Look for a division by zero, a log of 0, a row masked throughout, or a float16 overflow.
    """
    found = finiteness(bench)
    if not found.broken and found.share == 0:
        return passed()
    first = next(iter(found.broken), None)
    return failed(
        "",
        error(
            "not-finite",
            "the untrained model's logits, or the losses of real targets, are not finite "
            f"({found.share:.1%} of them)" + (f"; parameter {first} is NaN from the start" if first else ""),
            fix="look for a division by zero, a log of 0, a row whose attention mask is -inf throughout, "
            "or a float16 overflow",
            where=first or "model",
            share=found.share,
        ),
    )


@check("loss finite", rung="init", causes=("not-finite",), unless=_MEANINGLESS, quick=True)
def loss_finite(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Calls the subject's loss on its fullest rows, on its shortest, and on the very shortest one alone.

    ## Why it is bad
    A loss that is not a number on one rare batch ends a training hours later.

    ## Example
        return (losses * mask).sum() / (mask.sum() - 1)     # a row of one real token

    ## Fix
    Divide by a count that cannot be 0, and take no log of 0.
    """
    last = first_losses(bench)[-1]
    if math.isfinite(last.value):
        return passed()
    rows = f"rows of {min(last.real_tokens)} to {max(last.real_tokens)} real tokens"
    return failed(
        f"{last.value} on {rows}",
        error(
            "not-finite",
            f"the loss is {last.value} on {rows}, although the logits are finite",
            fix="divide by a count that cannot be 0, and take no log of 0",
            where="loss",
            real_tokens=last.real_tokens,
        ),
    )
