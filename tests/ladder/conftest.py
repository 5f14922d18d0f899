"""A script captured in a folder of its own."""

from __future__ import annotations

import pytest

from mlxstories.ladder.capture import CapturedScript


@pytest.fixture
def captured(tmp_path, monkeypatch):
    """Capture a script of this text, in its folder."""
    scripts = []
    monkeypatch.chdir(tmp_path)

    def capture(text, *argv, **options):
        (tmp_path / "train.py").write_text(text)
        scripts.append(CapturedScript("train.py", argv, **{"steps": 3, "batches": 16, **options}))
        return scripts[-1]

    yield capture
    for script in scripts:
        script.close()
