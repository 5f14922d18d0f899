"""Writing text: whole or not at all, and devices stay devices."""

import os
import stat
import threading
from pathlib import Path

import pytest

from mlxstories.errors import StoriesError
from mlxstories.storage.files import write_text


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(StoriesError, match="cannot write to"):
        write_text(path, "nobody reads it")
    got = []
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    thread = threading.Thread(target=lambda: got.append(os.read(reader, 100)))
    thread.start()
    write_text(path, "read")
    thread.join()
    os.close(reader)
    assert got == [b"read"] and stat.S_ISFIFO(path.stat().st_mode)


def test_the_null_device_stays_one():
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
