"""Real processes over the ring backend: their sums, the same losses as one process, and what ends them."""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks

TRAIN = ["train", "--stories", "60", "--validation", "40", "--size", "debug", "--batch-size", "4",
         "--context", "64", "--log-every", "1", "--evaluations", "3", "--no-check"]  # fmt: skip
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def cli(*options):
    return [sys.executable, "-m", "mlxstories.cli", *map(str, options)]


def finish(processes):
    """Exit code, stdout and stderr of each; whoever still hangs after minutes fails the test."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["split"]): line for line in lines}


def wait_for_step(run, step, processes):
    while all(process.poll() is None for process in processes):
        if (run / "metrics.jsonl").is_file() and f'"step": {step},' in (run / "metrics.jsonl").read_text():
            return
        time.sleep(0.02)
    pytest.fail(str(finish(processes)))


@pytest.mark.parametrize("size", [2])
def test_what_a_group_sums_sends_and_refuses(tmp_path, size):
    script = Path(__file__).with_name("collectives.py")
    for code, out, err in finish(ranks.start(size, [sys.executable, script, str(size)], tmp_path, **PIPES)):
        assert code == 0 and out == "all as wanted\n", err


def test_two_processes_give_the_losses_of_one_across_a_stop_and_a_change_of_their_number(tmp_path):
    """Phase 2: two microbatches of unequal token counts a step, label smoothing and clipping."""
    options = [*TRAIN, "--phase", 2, "--steps", 9, "--runs", tmp_path]
    alone = subprocess.Popen(cli(*options, "--name", "alone"), **PIPES, text=True)
    assert finish([alone])[0][0] == 0
    both = ranks.start(2, cli(*options, "--name", "both"), tmp_path, **PIPES)
    wait_for_step(tmp_path / "both", 2, both)
    # one is told, as when its terminal is closed; both stop after the same step
    both[1].send_signal(signal.SIGHUP)
    (code, out, err), (other_code, *other_output) = finish(both)
    assert code == other_code == 0, err
    assert "Continue with" in out and other_output == ["", ""]
    stopped = max(step for step, _ in metrics(tmp_path / "both"))
    resumed = subprocess.Popen(cli("train", "--resume", tmp_path / "both"), **PIPES, text=True)
    assert stopped < 9 and finish([resumed])[0][0] == 0
    one, two = metrics(tmp_path / "alone"), metrics(tmp_path / "both")
    assert {position for position in one if position[1] == "val"} <= two.keys()
    assert len([position for position in two if position[1] == "train"]) == 9
    for position, line in two.items():
        assert line["tokens"] == one[position]["tokens"]
        assert line["loss"] == pytest.approx(one[position]["loss"], rel=1e-5), position
        assert line["accuracy"] == pytest.approx(one[position]["accuracy"], abs=1e-3)
        if position[1] == "train":
            assert line["grad_norm"] == pytest.approx(one[position]["grad_norm"], rel=1e-3)


@pytest.mark.long
def test_under_mlx_launch_a_killed_process_ends_all_and_the_run_continues_with_two(tmp_path):
    run = tmp_path / "run"
    command = cli(*TRAIN, "--steps", 500, "--evaluations", 250, "--runs", tmp_path, "--name", "run")
    launcher = ranks.launch(2, command, **PIPES)
    wait_for_step(run, 4, [launcher])
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True)
    last = int(found.stdout.split()[-1])
    os.kill(last, signal.SIGKILL)
    ((_, _, err),) = finish([launcher])
    assert "connection to another process was lost" in err and f"train --resume {run}" in err
    assert "Traceback" not in err
    saved = max(step for step, split in metrics(run) if split == "val")
    both = ranks.start(2, cli("train", "--resume", run), tmp_path, **PIPES)
    wait_for_step(run, saved + 3, both)
    both[0].send_signal(signal.SIGINT)
    assert [code for code, _, _ in finish(both)] == [0, 0]


def test_nobody_waits_for_ever_for_a_process_that_fell_silent(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from mlxstories.distributed import join\n"
        "group = join(patience=0.5)\n"
        "group.agree(False, now=True)\n"
        "with group.supervised(lambda reason: print(reason, flush=True)):\n"
        "    if group.rank: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    group.agree(False, now=True)\n"
    )
    waiting, silent = ranks.start(2, [sys.executable, "-c", script], tmp_path, **PIPES)
    try:
        out, err = waiting.communicate(timeout=300)
    finally:
        silent.kill()
    finish([silent])
    assert (
        waiting.returncode == 1
        and out == f"rank 0 of 2, on {platform.node()}: the other processes were silent for 0.5 seconds.\n"
    ), err


def test_a_rank_that_a_launcher_stops_before_it_trains_says_so(tmp_path):
    script = (
        "import time\n"
        "from mlxstories.distributed import join\n"
        "group = join()\n"
        "with group.supervised(lambda reason: print(reason, flush=True)):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(300)\n"
    )
    both = ranks.start(2, [sys.executable, "-c", script], tmp_path, **PIPES)
    for process in both:
        assert process.stdout.readline() == "started\n"
        process.terminate()
    for rank, (code, out, err) in enumerate(finish(both)):
        assert code == 1 and err == ""
        assert out.startswith(f"rank {rank} of 2, on {platform.node()}: it was told to stop")


def test_a_batch_that_cannot_be_shared_is_refused_once_and_nothing_is_written(tmp_path):
    command = cli(*TRAIN, "--batch-size", 3, "--runs", tmp_path / "runs", "--name", "run")
    (code, _, err), (other_code, _, other_err) = finish(ranks.start(2, command, tmp_path, **PIPES))
    assert code == other_code == 2
    assert "3 rows cannot be divided among 2 processes" in err and "Traceback" not in err
    assert other_err == "" and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options, stories, named",
    [
        ("--seed 1 --steps $((9 - MLX_RANK))", "same", "--steps (8, not 9): start"),
        ("--bach-size 4", "same", "No such option"),
        ("", "$MLX_RANK", "fingerprint of the stories ("),
    ],
)
def test_what_differs_between_ranks_is_one_line_and_leaves_nothing(tmp_path, options, stories, named):
    for rank in range(2):
        for name in ("same", str(rank)):
            text = "\n\n".join(f"once {name} had {i} apples and ate {i % 7}" for i in range(60))
            (tmp_path / name).write_text(text)
    train = shlex.join(cli(*TRAIN, "--separator", "blank-line"))
    linked = f"mkdir folder$MLX_RANK && cd folder$MLX_RANK && cp ../{stories} stories.txt"
    script = f"{linked} && exec {train} --data stories.txt --runs ../runs {options}"
    ((_, out, err),) = finish([ranks.launch(2, ["/bin/sh", "-c", script], cwd=tmp_path, **PIPES)])
    assert out == "" and err.count("Error: ") == 1 and named in err and "Traceback" not in err
    assert "resume" not in err and not (tmp_path / "runs").exists()
    assert all(f"rank {rank} exited with code" in err and "code 0" not in err for rank in range(2))
