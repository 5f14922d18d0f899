"""A training on this machine's device, killed for real and resumed, against one that nobody disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from mlxstories.runs.directory import Run

STEPS = 40
_SAVED = 6  # updates after which it is killed
_PATIENCE = 60.0  # seconds for the first checkpoint, compilation included
_RECIPE = (
    *("--phase", "3", "--size", "debug", "--stories", "60", "--context", "32", "--batch-size", "2"),
    *("--steps", str(STEPS), "--save-every", "1", "--evaluations", "1", "--validation", "20", "--no-check"),
)


def numbers_that_differ() -> float:
    """Weights at the end of the two trainings that are not the same to the last bit.

    Raises:
        RuntimeError: a training failed, with the last line that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        _finish(_train(runs, *_RECIPE, "--name", "whole"))
        process = _train(runs, *_RECIPE, "--name", "killed")
        _kill_after(process, Run(runs / "killed"))
        _finish(_train(runs, "--resume", "killed"))
        whole, resumed = (mx.load(str(_weights(runs / name))) for name in ("whole", "killed"))
        if whole.keys() != resumed.keys():
            raise RuntimeError("the two trainings ended with other weights by name")
        return sum(mx.sum(whole[name] != resumed[name]).item() for name in whole)


def _weights(run: Path) -> Path:
    return Run(run).checkpoint("last").path / "model.safetensors"


def _train(runs: Path, *options: str) -> subprocess.Popen[str]:
    command: Sequence[str] = (sys.executable, "-m", "mlxstories.cli", "train", "--runs", str(runs), *options)
    # a CPU's compiled operations need a C++ compiler, and seconds of it
    environment = {**os.environ, "MLX_DISABLE_COMPILE": "1"} if mx.default_device().type == mx.cpu else None
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def _kill_after(process: subprocess.Popen[str], run: Run) -> None:
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < _PATIENCE:
        if any(checkpoint.step >= _SAVED for checkpoint in run.checkpoints()):
            break
        time.sleep(0.005)
    process.kill()
    process.communicate()


def _finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError((said.strip().splitlines() or ["it said nothing"])[-1])
