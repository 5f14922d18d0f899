"""What a climb has found so far, kept in a file that outlives the process that climbs."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlxstories.findings import Finding
    from mlxstories.ladder.diagnosis import Rung

_file: int | None = None  # in the process that climbs


def keep_in(file: int) -> None:
    """From now on `keep` writes to this descriptor."""
    global _file
    _file = file


def keep(kind: str, value: Any) -> None:
    """Write down an event of a climb, as `diagnose` tells of it; nothing where no process waits for it."""
    if _file is None:
        return
    told = {name: item for name, item in asdict(value).items() if name != "figures"}
    line = json.dumps([kind, told], default=str) + "\n"
    with contextlib.suppress(OSError):  # closed by what is examined
        os.write(_file, line.encode())


def kept(file: IO[bytes]) -> tuple[list[Finding], list[Rung]]:
    """The findings and the rungs that were written down; the last rung may be unfinished."""
    from mlxstories.findings import Finding
    from mlxstories.ladder.diagnosis import Line, Rung
    from mlxstories.storage.serialize import from_dict

    findings: list[Finding] = []
    rungs: dict[str, Rung] = {}
    file.seek(0)
    for line in file.read().decode(errors="replace").splitlines():
        try:
            kind, value = json.loads(line)
        except ValueError:  # cut off by the end of the process
            break
        if kind == "finding":
            findings.append(from_dict(Finding, value, kind))
        elif kind == "check":
            list(rungs.values())[-1].checks.append(from_dict(Line, value, kind))
        else:
            rungs[value["name"]] = from_dict(Rung, value, kind)
    return findings, list(rungs.values())
