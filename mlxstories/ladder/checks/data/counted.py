"""Whether training asks for all that validation asks for."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.counted import counted
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "training asks for what validation asks for",
    rung="data",
    causes=("texts-never-seen",),
    needs=("val_batches",),
    unless=("token-out-of-range", "targets-not-shifted", "targets-mismatched", "padding-in-loss"),
    stretches=Limit(1.5, "times as many stretches of a row"),
    share=Limit(1.5, "times as much of a row"),
    rows=Limit(32, "rows"),
)
def asked_for(bench: Bench, limits: Gauges) -> Verdict:
    """Counts in how many stretches of a row targets count, parted by such as do not, and which share of the row these
    are, in training and in validation.

    Training may leave out what validation asks for, as questions are. But where a row of validation has more answers
    than one of training, and more of it counts, some answers are taken for questions.
    Example: a mask that begins at the last mark of an answer: of a talk the last turn alone is trained.
    Fix: let one function make the masks of both, and look at a row of each, decoded.
    """
    found = counted(bench)
    if found is None or limits.rows.below(min(each.rows for each in found)):
        return skipped("no validation, or hardly any rows")
    train, val = found
    detail = (
        f"{train.stretches:.1f} stretches and {train.share:.0%} of a row in training, {val.stretches:.1f} and "
        f"{val.share:.0%} in validation"
    )
    more = limits.stretches.above(val.stretches / train.stretches)
    if not (limits.share.above(val.share / train.share) and more):
        return passed(detail)
    return failed(
        detail,
        error(
            "texts-never-seen",
            f"a row of training has {train.stretches:.1f} stretches of targets that count, {train.share:.0%} of it, "
            f"and one of validation {val.stretches:.1f}, {val.share:.0%} of it: some of what validation asks for "
            "counts nowhere in training",
            fix="make the masks of training and of validation by one function; of a talk all answers should count, "
            "and not the last alone",
            where="train_batches",
            stretches=train.stretches,
            validation_stretches=val.stretches,
            share=train.share,
            validation_share=val.share,
        ),
    )
