"""The files that hold what scripts print."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from mlxstories.ladder.capture.log import new_log


def test_logs_of_yesterday_go_with_a_new_one_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, hours in {
        "mlxstories-a.log": 25,
        "mlxstories-b.log": 1,
        "mlxstories-c": 25,
        "d.log": 25,
    }.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 3600 * hours,) * 2)
    with new_log() as log:
        log.write("loss 1.234\n")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mlxstories-b.log", "mlxstories-c", "d.log", Path(log.name).name}
    assert log.name.endswith(".log") and Path(log.name).read_text() == "loss 1.234\n"
