"""Whether each target is the token that follows."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.corrupted import corrupted
from mlxstories.ladder.bench.data.rows import Alignment, alignments
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped

_ABOUT = {
    "rung": "data",
    "causes": ("targets-not-shifted", "targets-mismatched"),
    "unless": ("token-out-of-range",),
    "quick": True,
    "enough": Limit(8, "cells"),
    "next": Limit(0.97, "of the cells"),
    "copied": Limit(0.5, "of the cells"),
    "copied_more": Limit(0.02, "of the cells, more than the next"),
    "elsewhere": Limit(0.8, "of the cells"),
    "elsewhere_more": Limit(0.1, "of the cells, more than the next"),
    "swapped": Limit(0.5, "of the rows"),
    "clipped": Limit(2, "ids above the highest target"),
}


@check("targets of train_batches follow the inputs", **_ABOUT)
def train_targets(bench: Bench, limits: Gauges) -> Verdict:
    """Counts, for shifts from -3 to 4, at how many real cells the target is the input so many places on; the seams
    between packed documents are forgiven. And are all next inputs above the highest target replaced by it?

    Targets that are the inputs teach copying, with a loss near 0 within minutes; targets shifted twice, backwards or
    against other rows teach nothing.
    Example: a loader that shifts already, under a loss that shifts once more.
    Fix: `inputs = tokens[:, :-1]`, `targets = tokens[:, 1:]`, cut from the same rows and shuffled together.
    """
    return _follow(bench, limits, "train_batches")


@check("targets of val_batches follow the inputs", needs=("val_batches",), **_ABOUT)
def val_targets(bench: Bench, limits: Gauges) -> Verdict:
    """Asks of the validation batches what is asked of those of training: at how many real cells is the target the next
    input?

    Validation against other targets than those trained on says nothing of training.
    Example: a second loader, written for validation, that forgets to shift.
    Fix: make validation batches with the code that makes those of training.
    """
    return _follow(bench, limits, "val_batches")


def _follow(bench: Bench, limits: Gauges, source: str) -> Verdict:
    found = alignments(bench)[source]
    if limits.enough.below(found.cells):
        return skipped("rows too short to tell")
    right = found.rates[1]
    detail = f"{right:.1%} of {found.cells} cells"
    if limits.clipped.above(len(set(found.clipped[1].tolist()))):
        return failed(f"{detail}, and none above id {found.clipped[0]}", _cut_off(found, source))
    if not limits.next.below(right):
        return passed(detail)
    if source == "train_batches" and corrupted(bench):
        return passed(f"{detail}; the other inputs are drawn anew in each epoch")
    return failed(detail, _copied(found, limits, source) or _mismatched(found, limits, source))


def _copied(found: Alignment, limits: Gauges, source: str) -> Draft | None:
    here, right = found.rates[0], found.rates[1]
    if found.best != 0 or not limits.copied.above(here) or not limits.copied_more.above(here - right):
        return None
    return error(
        "targets-not-shifted",
        f"the targets equal the inputs at {here:.1%} of the real tokens of {source}: it learns to copy",
        fix="take inputs = tokens[:, :-1] and targets = tokens[:, 1:]",
        where=source,
        **_evidence(found),
    )


def _cut_off(found: Alignment, source: str) -> Draft:
    highest, above = found.clipped
    return error(
        "targets-mismatched",
        f"no target of {source} is above id {highest}: where the next input is one of the {len(set(above.tolist()))} "
        f"ids above it, {len(above)} times, the target is {highest} itself",
        fix="pass the ids on unchanged: no clip, minimum or narrow type on the way to the targets",
        where=source,
        highest=highest,
        **_evidence(found),
    )


def _mismatched(found: Alignment, limits: Gauges, source: str) -> Draft:
    best, right = found.best, found.rates[1]
    there = found.rates[best]
    what = f"only {right:.1%} of the targets of {source} are the next input"
    if best != 1 and limits.elsewhere.above(there) and limits.elsewhere_more.above(there - right):
        what += f"; {there:.1%} are the input {abs(best)} {'ahead' if best > 0 else 'behind'}"
    elif limits.swapped.above(found.swapped):
        what += "; they are the next inputs of other rows"
    return error(
        "targets-mismatched",
        what,
        fix="cut inputs and targets from the same rows, one place apart, and shuffle them together",
        where=source,
        **_evidence(found),
    )


def _evidence(found: Alignment) -> dict:
    return {
        "match_by_shift": {str(k): round(rate, 4) for k, rate in found.rates.items()},
        "cells": found.cells,
    }
