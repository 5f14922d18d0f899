"""Time to a loss on tinyshakespeare, from the start of the command.

    python benchmarks/time_to_loss.py --nanogpt NANOGPT --text tinyshakespeare.txt
    python benchmarks/time_to_loss.py --sub-words --text tinyshakespeare.txt --rounds 1

The first is nanoGPT's own CPU setting, to 1.88. NANOGPT is an unchanged checkout of nanoGPT. Both train 4 layers of 128
on 12 rows of 64 characters at a time and hold out the last tenth. nanoGPT runs its README's command; mlxstories runs
phase 3 for as many updates as reach the loss. nanoGPT estimates its validation loss on 20 batches each 250 updates;
mlxstories measures it on all held-out text, once. Whoever ends without the loss is counted to its end. They take turns;
a ratio above 1 means that mlxstories is faster.

The second is mlxstories alone, on sub-words, to 1.4697 nats a *character*: the best of nanoGPT's model of 10 million
parameters on a GPU, in its README, which predicts characters. The same tenth is held out, and all of it is counted.
"""

from __future__ import annotations

import json
import math
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
OURS = "-m mlxstories.cli train --separator file --split tail --phase 3 --evaluations 1 --no-check --name run"
CHARACTERS = (
    "--tokenizer char --across-stories --lr 0.015 --layers 4 --heads 4 --dim 128 --context 64 --batch-size 12"
)
SUB_WORDS = (
    "--tokenizer bpe --vocab-size 2048 --size small --context 256 --dropout 0.1 --batch-size 4 --epochs 8 --mixing 4 "
    "--feed-forward relu2 --weight-decay 0.1 --set optimizer.rest_learning_rate=0.05 "
    "--set optimizer.orthogonalizer=polar_express --set schedule.cooldown=0.6"
)


@click.command()
@click.option("--nanogpt", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--sub-words", is_flag=True, help="mlxstories alone, to what nanoGPT's large model reaches.")
@click.option("--text", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--loss", type=float, help="Nats a character to reach.  [default: 1.88, or 1.4697]")
@click.option("--steps", default=340, show_default=True, help="Updates of mlxstories on characters.")
@click.option(
    "--rounds", "times", default=3, show_default=True, help="On characters all of them have seed 0."
)
@click.option("--first", default=0, show_default=True, help="Seed of the first round on sub-words.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
def main(nanogpt, sub_words, text, loss, steps, times, first, path):
    if sub_words == (nanogpt is not None):
        raise click.UsageError("give either --nanogpt or --sub-words")
    loss = loss or (1.4697 if sub_words else 1.88)
    recipe = SUB_WORDS if sub_words else f"{CHARACTERS} --steps {steps}"
    found: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        theirs = None if sub_words else _copied(nanogpt, text, Path(folder) / "nanogpt")
        for number in range(times):
            place = ["--data", str(text.resolve()), "--runs", str(Path(folder) / str(number))]
            ours = [*OURS.split(), *recipe.split(), *place, "--seed", str(first + number if sub_words else 0)]
            contenders = [("mlxstories", Path(folder), ours, _bits if sub_words else _ours)]
            if theirs:
                contenders.append(("nanogpt", theirs, NANOGPT.split(), _theirs))
            for name, where, command, read in contenders:
                run = _until(loss, [sys.executable, *command], where, read)
                print(f"{name:12}{run['seconds']:8.1f} s to {run['loss']:.4f} after {run['step']} updates")
                found.setdefault(name, []).append(run)
    result = {
        "loss": loss,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("mlx", *(["torch"] if theirs else []))},
        "runs": found,
        "seconds": {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()},
    }
    if theirs:
        pairs = zip(found["mlxstories"], found["nanogpt"], strict=True)
        ratios = [other["seconds"] / own["seconds"] for own, other in pairs]
        result["ratio_to_nanogpt"] = statistics.median(ratios)
        print(f"ratio_to_nanogpt {result['ratio_to_nanogpt']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _copied(nanogpt: Path, text: Path, copy: Path) -> Path:
    """A copy of nanoGPT with ``text`` as its data."""
    shutil.copytree(nanogpt, copy)
    data = copy / "data" / "shakespeare_char"
    shutil.copy(text, data / "input.txt")
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
    return copy


def _ours(line: str) -> tuple[int, float] | None:
    """The step of a line of mlxstories and its validation loss, nats a token, which is a character."""
    return _read(r"step +(\d+) .*validation loss ([\d.]+)", line)


def _bits(line: str) -> tuple[int, float] | None:
    """The step of a line of mlxstories and its validation loss, nats a character from bits to three digits."""
    found = _read(r"step +(\d+) .*?([\d.]+) bits/char", line)
    return found and (found[0], found[1] * math.log(2))


def _theirs(line: str) -> tuple[int, float] | None:
    return _read(r"step (\d+): train loss [\d.]+, val loss ([\d.]+)", line)


def _read(pattern: str, line: str) -> tuple[int, float] | None:
    found = re.search(pattern, line)
    return found and (int(found[1]), float(found[2]))


def _until(loss: float, command: list[str], where: Path, read) -> dict:
    """Run until a validation loss is low enough, or to the end: seconds since the start, the last loss and its step."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    lines, last = [], None
    with subprocess.Popen(command, cwd=where, env=environment, text=True, **output) as process:
        for line in process.stdout:
            lines.append(line)
            if found := read(line):
                last = {"loss": found[1], "step": found[0]}
                if last["loss"] <= loss:
                    process.kill()
                    break
    if last is None:
        raise SystemExit("".join(lines[-5:]) + f"{' '.join(command)} said no validation loss.")
    if last["step"] == 0:
        raise SystemExit(
            f"--loss {loss:g}: the untrained model has {last['loss']:g} already; give a lower one."
        )
    return {"seconds": time.perf_counter() - began, **last}


if __name__ == "__main__":
    main()
