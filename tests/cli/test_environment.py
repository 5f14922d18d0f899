"""Full disks, closed streams, no place for temporary files: what needs none works, and the rest is one line."""

import os
import resource
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mlxstories.cli import main as cli


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
    assert done.stderr == "Error: cannot write the output: No space left on device.\n"


@pytest.mark.parametrize("words", [["data", "show", "--stories", "500"], ["debug", "--break", "list"]])
def test_a_pipe_that_nobody_reads_any_more(tmp_path, words):
    """As SIGPIPE ends other programs; 1 would be an error that `debug` found."""
    command = [sys.executable, "-m", "mlxstories.cli", *words]
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        done = subprocess.run(command, cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


TRAIN = [sys.executable, "-m", "mlxstories.cli", "train", "--size", "debug", "--no-check", "--name", "tale"]
TRAIN += ["--stories", "20", "--validation", "5", "--steps", "1", "--context", "32"]


def test_mlx_has_no_temporary_directory_to_compile_in(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "file")}
    done = subprocess.run(TRAIN, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "TMPDIR" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "closed", [(0, 1, 2), *(pytest.param((n,), marks=pytest.mark.long) for n in range(3))]
)
def test_a_training_without_streams(tmp_path, closed):
    def close():
        for descriptor in closed:
            os.close(descriptor)

    assert subprocess.run(TRAIN, cwd=tmp_path, preexec_fn=close).returncode == 0
    assert (tmp_path / "runs" / "tale" / "result.json").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_training_whose_log_is_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        assert subprocess.run(TRAIN, cwd=tmp_path, stderr=full, stdout=subprocess.DEVNULL).returncode == 2


@pytest.mark.long
def test_a_backend_that_matplotlib_does_not_have(tmp_path):
    environment = {**os.environ, "MPLBACKEND": "nosuch"}
    command = [sys.executable, "-m", "mlxstories.cli", "debug", "--rung", "data", "--export", "figures"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "MPLBACKEND" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("date", ["", "x", "-1", "\x1b[31m", "1e9", "²", "9" * 5000])
def test_a_date_for_reproducible_builds_that_is_none(date):
    done = CliRunner(env={"SOURCE_DATE_EPOCH": date}).invoke(cli, ["info"])
    assert done.exit_code == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "SOURCE_DATE_EPOCH" in line and line.isprintable() and len(line) < 200


def test_a_compiler_that_is_missing(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run(TRAIN, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return  # a GPU compiles without
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "which is missing: install it (Debian, Ubuntu: sudo apt install g++)."
    )
    assert not (tmp_path / "runs").exists()


def test_a_working_directory_that_is_gone(tmp_path):
    (tmp_path / "gone").mkdir()

    def gone():
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")

    command = [sys.executable, "-m", "mlxstories.cli", "debug", "setup.py", "--json", "found.json"]
    done = subprocess.run(command, preexec_fn=gone, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr and "directory" in done.stderr
