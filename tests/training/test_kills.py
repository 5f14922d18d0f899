"""Trainings in real processes: killed, starved, disturbed by a second one; `benchmarks/kills.py` kills many more."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import kills
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.runs.directory import Run
from mlxstories.storage.lock import Busy, locked

SMALL = [*kills.SHAPE, *kills.DATA, "--log-every", "2", "--every", "1", "--no-check"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def train(runs, name, *options, **more):
    command = [sys.executable, "-m", "mlxstories.cli", "train", "--runs", str(runs), *options, "--name", name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.fixture(scope="module")
def ordeal(runs):
    return kills.ordeal(runs, "phase 2", seed=3, most=3)


def test_a_training_killed_again_and_again_ends_as_if_nobody_had(ordeal):
    assert sum(ordeal.kills.values()) >= 2
    assert ordeal.differences == []


def test_differences_are_seen(ordeal, runs, tmp_path):
    whole = runs / "phase 2"
    changed = shutil.copytree(whole, tmp_path / "changed")
    assert kills.differences(whole, changed) == []
    text = (changed / "metrics.jsonl").read_text()
    (changed / "metrics.jsonl").write_text(text.replace('"step": 3,', '"step": 4,', 1))
    (changed / ".x.mlxstories-partial").touch()
    assert kills.differences(whole, changed) == ["metrics.jsonl", ".x.mlxstories-partial was left behind"]


def test_one_process_trains_in_a_run_while_others_read_it(runs):
    process = train(runs, "held", *SMALL, "--steps", "1000000")
    while process.poll() is None and kills._steps(runs / "held") < 3:
        time.sleep(0.02)
    run = str(runs / "held")
    try:
        second = CliRunner().invoke(main, ["train", "--resume", run])
        assert second.exit_code == 2
        assert f"in use by process {process.pid} on " in second.output and "Traceback" not in second.output
        told = CliRunner().invoke(main, ["sample", run, "--num", "1", "--max-tokens", "3"])
        assert told.exit_code == 0, told.output
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with locked(runs / "held"), locked(runs / "held"):  # the dead process holds nothing
        pass


def test_a_lock_is_given_back(tmp_path):
    code = (
        "import sys, pathlib; from mlxstories.storage.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True)
        assert Busy.__name__ in done.stderr and f"process {os.getpid()}" in done.stderr
    assert subprocess.run(command).returncode == 0


def test_a_full_disk_is_one_line_and_the_training_continues_later(runs):
    """No file may grow over 30,000 bytes: the tokenizer fits, the weights do not."""
    limit = (30_000, 30_000)
    process = train(
        runs,
        "full",
        *SMALL,
        "--steps",
        "2",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    out, err = process.communicate()
    assert process.returncode == 2, out + err
    assert "cannot write" in err and "Traceback" not in err
    run = Run(runs / "full")
    assert not run.saved() and not list(run.path.rglob("*partial*"))
    done = CliRunner().invoke(main, ["train", "--resume", str(run.path)])
    assert done.exit_code == 0, done.output
    assert run.checkpoint("last").step == 2


@pytest.mark.skipif(not (sys.platform == "linux" and os.geteuid() == 0), reason="mounts a file system")
def test_a_file_system_that_is_really_full(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(folder)]).returncode:
        pytest.skip("may not mount")
    try:
        arguments = ["train", "--runs", str(folder), "--name", "run", *SMALL, "--steps", "20"]
        done = CliRunner().invoke(main, [*arguments, "--evaluations", "20", "--keep", "20"])
        assert done.exit_code == 2 and "No space left" in done.output, done.output
        run = Run(folder / "run")
        last = run.checkpoint("last").step
        assert 0 < last < 20
        shutil.rmtree(folder / "run" / "checkpoints" / "step-1")
        shutil.rmtree(folder / "run" / "checkpoints" / "step-2")
        again = CliRunner().invoke(main, ["train", "--resume", str(run.path)])
        assert again.exit_code == 2 and "No space left" in again.output, again.output
        assert run.checkpoint("last").step > last
    finally:
        subprocess.run(["umount", str(folder)], check=True)
