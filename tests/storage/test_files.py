"""Writing text: whole or not at all, and devices stay devices."""

import os
import stat
from pathlib import Path

import pytest

from mlxstories.errors import StoriesError
from mlxstories.storage.files import write_text


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(StoriesError, match="cannot write to"):
        write_text(path, "nobody reads it")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_text(path, "read")
    assert os.read(reader, 100) == b"read" and stat.S_ISFIFO(path.stat().st_mode)
    os.close(reader)


def test_the_null_device_stays_one():
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
