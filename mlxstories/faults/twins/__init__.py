"""Healthy twins: for every cause, the closest sound look-alike of its fault, which the ladder must not accuse."""

from __future__ import annotations

from mlxstories.faults.twins import consistency, data, model, training, wiring
from mlxstories.faults.twins.twin import Twin as Twin

TWINS: dict[str, Twin] = {
    twin.name: twin for group in (data, model, consistency, training, wiring) for twin in group.TWINS
}
"""By name, at least one for each cause."""
