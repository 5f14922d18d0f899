"""Faults that can be planted in the built-in recipe: demonstration, documentation and test in one."""

from __future__ import annotations

from mlxstories.errors import StoriesError, did_you_mean, listed
from mlxstories.faults import (
    consistency,
    cutting,
    data,
    decoding,
    epochs,
    judging,
    leaks,
    model,
    numerics,
    optimisation,
    reported,
    reported_later,
    rows,
    updates,
    vocabulary,
    wiring,
)
from mlxstories.faults.fault import Fault as Fault

_PARTS = (
    data,
    epochs,
    cutting,
    vocabulary,
    leaks,
    rows,
    consistency,
    model,
    numerics,
    optimisation,
    wiring,
    updates,
    judging,
    decoding,
    reported,
    reported_later,
)

FAULTS: dict[str, Fault] = {fault.name: fault for part in _PARTS for fault in part.FAULTS}


def find(name: str) -> Fault:
    """The fault of this name.

    Raises:
        StoriesError: there is none.
    """
    if name not in FAULTS:
        causing = listed((fault.name for fault in FAULTS.values() if fault.code == name), 4)
        hint = (
            f" That is a cause, and these faults bring it about: {causing}."
            if causing
            else did_you_mean(name, FAULTS)
        )
        raise StoriesError(
            f"there is no fault {name!r}: `mlxstories debug --break list` shows all {len(FAULTS)}.{hint}"
        )
    return FAULTS[name]
