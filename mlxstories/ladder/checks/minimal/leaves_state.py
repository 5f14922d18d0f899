"""Whether validating and decoding leave behind what they found."""

from __future__ import annotations

from mlxstories.errors import shortened
from mlxstories.findings import ERROR
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.side_effects import (
    SideEffects,
    drawn_with,
    side_effects,
    told_losses,
)
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "validating and decoding change nothing",
    rung="minimal",
    causes=("evaluation-changes-state",),
    unless=("not-finite", "no-update", "batch-leak"),
    change=Limit(1e-5, "of the logits' spread"),
    moments=Limit(1e-3, "of the norm of the optimiser's state"),
    other=Limit(0.05, "of the logits' spread, of a model without dropout"),
)
def leaves(bench: Bench, limits: Gauges) -> Verdict:
    """Compares weights, the optimiser's state, random states and the logits in training mode before and after
    validation, decoding and a forward pass in evaluation mode. That they leave the model in evaluation mode is not
    reported: loops call `model.train()`.

    What validation changes, training goes on with.

    Example: averaged weights that are put in for validation and not taken out; `np.random.seed(0)` in a validation
    whose generator the batches are drawn with.

    Fix: save `model.parameters()` before and restore them with `model.update(...)` after; give validation its own
    generator.
    """
    found = side_effects(bench)
    if not found:
        return skipped("the model in training mode is not repeatable under one seed")
    told = {name: _told(bench, name, one, limits) for name, one in found.items()}
    drafts = [draft for some in told.values() for draft in some]
    detail = ", ".join(found)
    if drafts:
        detail = "not so " + ", ".join(name for name, some in told.items() if some)
    verdict = failed if any(draft.severity == ERROR for draft in drafts) else passed
    return verdict(detail, *drafts)


def _told(bench: Bench, name: str, one: SideEffects, limits: Gauges) -> list[Draft]:
    drafts = []
    if one.weights and limits.change.above(one.change):
        drafts.append(_weights(name, one))
    elif limits.change.above(one.change):
        drafts.append(_behaviour(name, one, limits))
    if limits.moments.above(one.moments):
        drafts.append(_moments(name, one))
    drafts += [_generator(name, generator, drawn_with(bench)) for generator in one.reseeded]
    return [draft for draft in drafts if draft is not None]


def _weights(name: str, one: SideEffects) -> Draft:
    return error(
        "evaluation-changes-state",
        f"{name} changes {len(one.weights)} parameters ({shortened(one.weights)}): training goes on from other weights",
        fix="save model.parameters() before it and restore them with model.update after it",
        where=name.partition("(")[0],
        parameters=len(one.weights),
        change=one.change,
    )


def _moments(name: str, one: SideEffects) -> Draft:
    return warning(
        "evaluation-changes-state",
        f"{name} changes the optimiser's state, by {one.moments:.1g} of its norm: training goes on with other moments "
        "or another count of steps",
        fix="let validation and decoding neither call nor initialise the optimiser",
        where=name.partition("(")[0],
        change=one.moments,
    )


def _behaviour(name: str, one: SideEffects, limits: Gauges) -> Draft:
    """An error where training goes on with another function; less dropout is the same one, less disturbed."""
    bad = not one.random and limits.other.above(one.change)
    what = "a position or a state that is counted on, say" if bad else "a rate of dropout say"
    return (error if bad else warning)(
        "evaluation-changes-state",
        f"after {name} the same weights under the same seed give other logits in training mode (by {one.change:.1g} "
        f"of their spread): something besides the weights was changed, {what}",
        fix="set no attribute in the forward pass, or set it back; pass counts and states along with the cache"
        if bad
        else "ask self.training in the forward pass, and set no attribute there",
        where=name.partition("(")[0],
        change=one.change,
    )


def _generator(name: str, generator: str, drawing: list[str]) -> Draft | None:
    """An error where the batches are drawn with the generator; elsewhere it is a habit that harms nobody."""
    if generator not in drawing:
        return None
    return error(
        "evaluation-changes-state",
        f"{name} seeds the generator of {generator}, with which the training batches are drawn: after each "
        "validation training sees the same batches again",
        fix="give validation a generator of its own (np.random.default_rng, mx.random.key), or the batches",
        where=name.partition("(")[0],
        generator=generator,
    )


@check(
    "validating and decoding leave the loss alone",
    rung="minimal",
    causes=("evaluation-changes-state",),
    needs=("train_step",),
    unless=("not-finite", "no-update", "batch-leak", "not-repeatable", "evaluation-changes-state"),
    apart=Limit(0.02, "of the loss that the step told before"),
)
def leaves_the_loss(bench: Bench, limits: Gauges) -> Verdict:
    """Lets the step tell its loss of one batch with the same weights before validation, or decoding, and next after it.

    What validation adds up where the step does, and does not clear, is told as loss of training: a peak after each
    validation, in which nothing has happened.

    Example: a buffer of losses that both add to, and the step alone sets to 0.

    Fix: clear it at the end of validation, or give validation one of its own.
    """
    found = told_losses(bench)
    if not found:
        return skipped("the step does not tell the same loss twice")
    for name, loss in found.items():
        if limits.apart.above(abs(loss.after - loss.before) / max(abs(loss.before), 1e-9)):
            return failed(
                f"not so {name}",
                error(
                    "evaluation-changes-state",
                    f"of one batch, with the same weights, the step tells a loss of {loss.before:.4g} before {name}, "
                    f"and of {loss.after:.4g} next after it",
                    fix="let validation and decoding add to nothing that the step reads, or clear it at their end",
                    where="train_step",
                    before=loss.before,
                    after=loss.after,
                ),
            )
    return passed(", ".join(found))
