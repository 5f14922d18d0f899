"""Whether it is the next token that is predicted."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.loss.denoising import replaced_in_loss, replaced_in_rows
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import OTHER_TASK, Verdict, passed


@check(
    "the next token is predicted",
    rung="data",
    causes=("subject-error",),
    unless=("token-out-of-range",),
    quick=True,
    cells=Limit(8, "cells"),
    one=Limit(0.7, "of the inputs that are not their targets"),
    never=Limit(0.01, "of the targets"),
    rest=Limit(0.8, "of the other cells"),
    own=Limit(0.9, "of the cells that the loss changes"),
)
def predicts_the_next(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for tokens that are put back at their own places: rows in which one id that is never a target stands for
    the tokens that count, while the others are their own targets, and a loss that changes the ids that its model reads
    and asks for what stood there.

    Such a model may see its whole row, and its targets are not the next tokens: what the ladder asks of the data, the
    model and the loss has no meaning for it, so the climb ends here.
    Example: a masked language model such as BERT; a diffusion model of text.
    Fix: nothing needs fixing for the ladder's sake. The exit code is 2, as for what cannot be examined.
    """
    found = replaced_in_rows(bench)
    if (
        found is not None
        and limits.cells.above(found.cells)
        and limits.one.above(found.alike)
        and limits.rest.above(found.rest)
        and limits.never.below(found.asked)
    ):
        raise _other_task(bench, f"in train_batches id {found.token} stands for tokens")
    found = replaced_in_loss(bench)
    if found is not None and limits.cells.above(found.cells) and limits.own.above(found.alike):
        raise _other_task(bench, "the loss puts other ids in the place of tokens")
    return passed()


def _other_task(bench: Bench, how: str) -> SubjectFault:
    return bench.fault(
        f"{how} that the model is to put back where they were: it is a masked language model or a diffusion model, to "
        "which the ladder's questions about the next token do not apply",
        "nothing to fix: no mistake was found, and the other checks do not apply",
        ended=OTHER_TASK,
    )
