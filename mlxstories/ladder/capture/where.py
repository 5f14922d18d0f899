"""The lines of a script where findings of the ladder lie: in the loop, the loss, or the optimiser's making."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlxstories.findings import Finding, Place
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.where.places import Line, place

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_DATA = (
    "constant-batches",
    "targets-not-shifted",
    "targets-mismatched",
    "train-val-overlap",
    "token-out-of-range",
)
_LOSS = (
    "padding-in-loss",
    "loss-sign",
    "double-softmax",
    "wrong-loss",
    "wrong-normalisation",
    "gradient-mismatch",
)
_OPTIMIZER = (
    "learning-rate-too-small",
    "learning-rate-too-large",
    "weight-decay-too-large",
    "no-bias-correction",
    "warmup-too-long",
    "state-not-kept",
    "extreme-constants",
)
_UPDATE = ("clipping-too-tight", "no-update", "frozen-parameters")


def located(diagnosis: Diagnosis, script: CapturedScript) -> Diagnosis:
    """The diagnosis with ``where`` a `Place` wherever a line is known."""
    return replace(diagnosis, findings=[_located(finding, script) for finding in diagnosis.findings])


def _located(finding: Finding, script: CapturedScript) -> Finding:
    loop, code, found = script.loop, finding.code, None
    if isinstance(finding.where, Place):
        return finding
    replayed = {"evaluate": script.validation, "generate": script.decoding}.get(finding.where)
    if replayed is not None:
        found = place(replayed.called.line)
    elif finding.where == "val_batches":
        found = place(script.validation_log.line)
    elif (part := str(finding.where)) in (parts := _of_part(script)):
        found = place(parts[part])
    elif code in _DATA:
        found = place(loop.seen.drawn)
    elif code in _LOSS:
        found = place(script.roles.first.line)
    elif code in _OPTIMIZER:
        found = place(loop.made)
    elif code in _UPDATE and loop.seen.updates:
        found = place(loop.seen.updates[0].line)
    if found is None:
        return finding
    if finding.where and replayed is None:
        found["module"] = str(finding.where)
    return replace(finding, where=found)


def _of_part(script: CapturedScript) -> dict[str, Line | None]:
    """Lines by the words in which an exchange names a part of a setup whose functions are the ladder's."""
    seen = script.loop.seen
    return {
        "the data": seen.drawn,
        "the loss": script.roles.first.line,
        "the step": seen.updates[0].line if seen.updates else None,
        "the optimizer": script.loop.made,
    }
