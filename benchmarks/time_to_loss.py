"""Time to a loss: nanoGPT's own CPU setting on tinyshakespeare, from the start of the command to 1.88.

    python benchmarks/time_to_loss.py --nanogpt NANOGPT --text tinyshakespeare.txt

NANOGPT is an unchanged checkout of nanoGPT. Both train 4 layers of 128 on 12 rows of 64 characters at a time and
hold out the last tenth. nanoGPT runs its README's command; mlxstories runs phase 3 for as many updates as reach the
loss. nanoGPT estimates its validation loss on 20 batches each 250 updates; mlxstories measures it on all held-out
text, once. Whoever ends without the loss is counted to its end. They take turns; a ratio above 1 means that
mlxstories is faster.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click

NANOGPT = (
    "train.py config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 "
    "--dropout=0.0"
)
OURS = (
    "-m mlxstories.cli train --separator file --split tail --tokenizer char --across-stories --phase 3 --lr 0.015 "
    "--layers 4 --heads 4 --dim 128 --context 64 --batch-size 12 --evaluations 1 --no-check --name run"
)


@click.command()
@click.option("--nanogpt", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--text", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--loss", default=1.88, show_default=True, help="Validation loss to reach, nats a character.")
@click.option("--steps", default=340, show_default=True, help="Updates of mlxstories.")
@click.option("--rounds", "times", default=3, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
def main(nanogpt, text, loss, steps, times, path):
    seconds: dict[str, list[float]] = {"mlxstories": [], "nanogpt": []}
    reached: dict[str, list[dict]] = {"mlxstories": [], "nanogpt": []}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nanogpt"
        shutil.copytree(nanogpt, copy)
        data = copy / "data" / "shakespeare_char"
        shutil.copy(text, data / "input.txt")
        subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
        for number in range(times):
            runs = Path(folder) / str(number)
            ours = [*OURS.split(), "--data", str(text.resolve()), "--steps", str(steps), "--runs", str(runs)]
            for name, where, command, pattern in (
                ("mlxstories", Path(folder), ours, r"step +(\d+) .*validation loss ([\d.]+)"),
                ("nanogpt", copy, NANOGPT.split(), r"step (\d+): train loss [\d.]+, val loss ([\d.]+)"),
            ):
                found = _until(loss, [sys.executable, *command], where, pattern)
                print(
                    f"{name:12}{found['seconds']:8.1f} s to {found['loss']:.4f} after {found['step']} updates"
                )
                seconds[name].append(found["seconds"])
                reached[name].append(found)
    ratios = [theirs / own for own, theirs in zip(seconds["mlxstories"], seconds["nanogpt"], strict=True)]
    result = {
        "loss": loss,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("mlx", "torch")},
        "runs": reached,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio_to_nanogpt": statistics.median(ratios),
    }
    print(f"ratio_to_nanogpt {result['ratio_to_nanogpt']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _until(loss: float, command: list[str], where: Path, pattern: str) -> dict:
    """Run until a validation loss is low enough, or to the end: seconds since the start, the last loss and its step."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    lines, last = [], None
    with subprocess.Popen(command, cwd=where, env=environment, text=True, **output) as process:
        for line in process.stdout:
            lines.append(line)
            if found := re.search(pattern, line):
                last = {"loss": float(found[2]), "step": int(found[1])}
                if last["loss"] <= loss:
                    process.kill()
                    break
    if last is None:
        raise SystemExit("".join(lines[-5:]) + f"{' '.join(command)} said no validation loss.")
    return {"seconds": time.perf_counter() - began, **last}


if __name__ == "__main__":
    main()
