"""Faults that can be planted in the built-in recipe: demonstration, documentation and test in one."""

from __future__ import annotations

from mlxstories.errors import StoriesError
from mlxstories.faults import consistency, data, epochs, judging, leaks, model, numerics, optimisation, wiring
from mlxstories.faults.fault import Fault as Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for group in (data, epochs, leaks, consistency, model, numerics, optimisation, wiring, judging)
    for fault in group.FAULTS
}


def find(name: str) -> Fault:
    """The fault of this name.

    Raises:
        StoriesError: there is none.
    """
    if name not in FAULTS:
        raise StoriesError(
            f"there is no fault {name!r}: `mlxstories debug --break list` shows all {len(FAULTS)}."
        )
    return FAULTS[name]
