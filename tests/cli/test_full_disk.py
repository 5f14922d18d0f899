"""On a full disk what needs no file works, and the rest says so in one line."""

import os
import resource
import signal
import subprocess
import sys

import pytest


def no_room():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize("words, code", [(["info"], 0), (["tour", "--yes"], 2)])
def test_a_command_starts_without_a_temporary_directory(tmp_path, words, code):
    command = [sys.executable, "-m", "mlxstories.cli", *words]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=no_room, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.splitlines()[-1].startswith("Error: cannot write to the temporary directory: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    "words", [["--version"], ["train", "--help"], ["data", "show", "--stories", "1"], ["info"]]
)
def test_what_there_is_to_say_does_not_fit(tmp_path, words):
    command = [sys.executable, "-m", "mlxstories.cli", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: cannot write what there is to say: No space left on device.\n"
