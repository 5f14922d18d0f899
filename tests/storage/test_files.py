"""Writing text: whole or not at all, and devices stay devices."""

import os
import stat
from pathlib import Path

import pytest

from mlxstories.errors import StoriesError
from mlxstories.storage import files
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


def test_where_fsync_stops_at_the_drives_cache_the_drive_is_asked(tmp_path, monkeypatch):
    """As macOS does; a file system that is on no drive refuses, and fsync has to do."""
    asked, forced, refuses = [], [], False

    def control(descriptor, request):
        asked.append(request)
        if refuses:
            raise OSError("not supported")

    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", control)
    monkeypatch.setattr(files.os, "fsync", forced.append)
    files.sync(tmp_path)
    assert asked == [51] and not forced
    refuses = True
    files.sync(tmp_path)
    assert asked == [51, 51] and len(forced) == 1
