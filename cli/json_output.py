"""What `mlxstories debug` writes of its findings for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click


def write_json(report: dict, path: Path) -> None:
    """Write it to a file, or to standard output for ``-``."""
    text = json.dumps(_finite(report), indent=2) + "\n"
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    from mlxstories.runs.directory import write_text, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _finite(value):
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
