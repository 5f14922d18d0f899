"""What ``config.json`` of a run may hold, so that its readers can go by the types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxstories.errors import StoriesError

_KINDS: dict[str, type | tuple[type, ...]] = {
    "an object": dict,
    "a text": str,
    "a text or a list of texts": (str, list),
    "a whole number": int,
    "a number": (int, float),
}
# Outer fields stand before those in them; any may be missing or null.
_FIELDS = {
    "name": "a text",
    "model": "an object",
    "phase": "an object",
    "phase.name": "a text",
    "data": "an object",
    "data.source": "a text or a list of texts",
    "data.seed": "a whole number",
    "training": "an object",
    "training.steps": "a whole number",
    "training.epochs": "a whole number",
    "seed": "a whole number",
    "fingerprint": "a text",
    "floor": "an object",
    "floor.nats": "a number",
    "floor.accuracy": "a number",
    "parameters": "a whole number",
    "command": "a text",
    "versions": "an object",
    "imported": "an object",
}


def check_types(config: dict[str, Any], path: Path) -> None:
    """Raises StoriesError if a field that is read without its dataclass is of another type than it was written in."""
    for field, kind in _FIELDS.items():
        value: Any = config
        for name in field.split("."):
            value = (value or {}).get(name)
        good = value is None or (isinstance(value, _KINDS[kind]) and not isinstance(value, bool))
        if not good or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
            raise StoriesError(f"{path}: {field} must be {kind}; got {value!r}: the file is damaged.")
