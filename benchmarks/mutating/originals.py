"""What the sound setups show, kept in a folder for other seeds and later looks."""

from __future__ import annotations

import json
from pathlib import Path

from mutating.forked import ended_with, forked
from mutating.setups import Workplace
from mutating.trial import original

_CPU = 300  # seconds


def begun(workplace: Workplace, updates: int, folder: Path, *, whole: bool = False) -> tuple[dict, Path]:
    """What the original shows, and the file of what mutants are held against; from the folder where it is kept there.

    Args:
        whole: as in `Reference`.
    """
    name = "".join(c if c.isalnum() else "-" for c in workplace.origin.name)
    name += f"-{updates}" + ("-whole" if whole else "")
    told, reference = folder / f"{name}.json", folder / f"{name}.pickle"
    if not (told.exists() and reference.exists()):
        found, seconds = forked(original, workplace, updates, reference, whole, most=_CPU)
        found = found if isinstance(found, dict) else {"why": ended_with(found)}
        told.write_text(json.dumps(found | {"seconds": seconds}))
    return json.loads(told.read_text()), reference
