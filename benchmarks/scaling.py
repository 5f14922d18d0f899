"""Training with several processes: are the losses those of one, what do kills leave, and what does it cost?

    python benchmarks/scaling.py --json scaling.json

Measured here: the losses of 1 to 4 processes, runs whose processes are killed, and the speed of 1 and 2 processes
on a core each, in alternating rounds. Reasoned on paper: the time to sum the gradients over real links,
which no single computer can show.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import mlx.core as mx
import numpy as np
import ranks
from kills import differences

from mlxstories.runs.directory import Run, write_json

PARTS = ("losses", "kills", "speed", "paper")
SIZES = ("small", "base", "large")
PHASES = (1, 2, 3)
# how a run ends early: the signal, and which ranks may be its victim
ENDS = {
    "SIGKILL of rank 0": (signal.SIGKILL, slice(0, 1)),
    "SIGKILL of another": (signal.SIGKILL, slice(1, None)),
    "SIGTERM of rank 0": (signal.SIGTERM, slice(0, 1)),
    "SIGTERM of another": (signal.SIGTERM, slice(1, None)),
    "Ctrl-C": (signal.SIGINT, slice(0, 1)),
}
# usable bits a second and seconds one way: nominal for the wires, what a good room allows for Wi-Fi 6
LINKS = {
    "Thunderbolt 4 (IP)": (20e9, 50e-6),
    "10 GbE": (10e9, 50e-6),
    "1 GbE": (1e9, 100e-6),
    "Wi-Fi 6": (0.6e9, 2e-3),
}


def cli(*options: object) -> list[str]:
    return [sys.executable, "-m", "mlxstories.cli", "train", *map(str, options)]


def recipe(phase: int, steps: int) -> list[object]:
    return [
        "--stories", 100, "--validation", 40, "--size", "debug", "--phase", phase, "--batch-size", 12,
        "--steps", steps, "--log-every", 1, "--no-check",
    ]  # fmt: skip


def trained(count: int, folder: Path, command: list[str]) -> None:
    """Run ``count`` processes of ``command`` to their end."""
    for process in ranks.start(count, command, folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL):
        _, err = process.communicate()
        if process.returncode:
            raise click.ClickException(err)


def metrics(run: Path) -> dict[tuple[int, str], dict]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(line["step"], line["split"]): line for line in map(json.loads, lines)}


def difference(run: Path, reference: Path) -> float:
    """The largest relative difference between the losses of two runs, which must have the same lines."""
    one, other = metrics(reference), metrics(run)
    if one.keys() != other.keys() or any(one[at]["tokens"] != other[at]["tokens"] for at in one):
        raise click.ClickException(f"{run} and {reference} measured at other points")
    return max(abs(other[at]["loss"] / one[at]["loss"] - 1) for at in one)


def weights_difference(run: Path, reference: Path) -> dict[str, float]:
    """How far apart the last weights of two runs are: the largest difference, and the norm of all of them over
    that of the weights."""
    one, other = (
        {name: np.array(array, dtype=np.float64) for name, array in mx.load(str(path)).items()}
        for path in (Run(each).checkpoint("last").path / "model.safetensors" for each in (reference, run))
    )
    apart = np.concatenate([(other[name] - one[name]).ravel() for name in one])
    norm = np.linalg.norm(np.concatenate([array.ravel() for array in one.values()]))
    return {"largest": float(np.abs(apart).max()), "relative": float(np.linalg.norm(apart) / norm)}


def losses(folder: Path, counts: range, steps: int = 12) -> list[dict]:
    """Every phase with every number of processes against one."""
    found = []
    for phase in PHASES:
        for count in (1, *counts):
            run = folder / f"phase{phase}-{count}"
            trained(count, folder, cli(*recipe(phase, steps), "--runs", folder, "--name", run.name))
            if count > 1:
                alone = folder / f"phase{phase}-1"
                worst, weights = difference(run, alone), weights_difference(run, alone)
                found.append(
                    {"phase": phase, "processes": count, "steps": steps, "losses": worst, "weights": weights}
                )
                click.echo(
                    f"phase {phase}, {count} processes: losses differ by at most {worst:.1e}, a weight by "
                    f"{weights['largest']:.1e}, all of them by {weights['relative']:.1e}"
                )
    return found


def interrupted(folder: Path, counts: range, rounds: int, steps: int = 20) -> list[dict]:
    """Runs under mlx.launch that are ended at a random moment in each of the `ENDS`, and then resumed by as many
    processes: are they, bit for bit, the run that nothing disturbed?"""
    dice, found = random.Random(0), []

    def command(name: str) -> list[str]:
        return cli(*recipe(1, steps), "--every", 3, "--runs", folder, "--name", name)

    for count in counts:
        whole = folder / f"whole-{count}"
        trained(count, folder, command(whole.name))
        for index, (end, (number, victims)) in enumerate(rounds * list(ENDS.items())):
            run, at = folder / f"ended-{count}-{index}", dice.randrange(1, steps // 2)
            launcher = launched(count, folder, command(run.name))
            while (at, "train") not in metrics(run):
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.2))
            victim = dice.choice(range(count)[victims])
            began = time.perf_counter()
            if end == "Ctrl-C":  # reaches the launcher and its ranks, as from a terminal
                os.killpg(launcher.pid, number)
            else:
                os.kill(int((folder / f"pid-{victim}").read_text()), number)
            said, _ = launcher.communicate(timeout=300)
            seconds = time.perf_counter() - began
            if (run / "result.json").is_file():
                raise click.ClickException(f"{run} ended before it was disturbed")
            trained(count, folder, cli("--resume", run))
            found.append(
                {
                    "processes": count,
                    "end": end,
                    "after step": at,
                    "seconds until all had ended": round(seconds, 2),
                    "clear": is_clear(said, end, count),
                    "differences": differences(whole, run),
                }
            )
            click.echo(", ".join(f"{name} {value}" for name, value in found[-1].items()))
            if not found[-1]["clear"]:
                click.echo(said)
    return found


def is_clear(said: str, end: str, count: int) -> bool:
    """Whether the ranks ended as they should: each of the others in a line when one was killed, all of them in one
    when one was told to stop. After Ctrl-C mlx.launch shows its own traceback and nothing more."""
    if end == "Ctrl-C":
        return True
    lines = count - 1 if "SIGKILL" in end else 1
    return said.count("Continue") == said.count("Stopped") == lines and "Traceback" not in said


def launched(count: int, folder: Path, command: list[str]) -> subprocess.Popen:
    """mlx.launch of ``command`` in a process group of its own; each rank leaves its process id in ``folder``."""
    script = f'echo $$ > {shlex.quote(str(folder))}/pid-$MLX_RANK; exec "$@"'
    return ranks.launch(
        count,
        ["/bin/sh", "-c", script, "rank", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def worker(size: str, rows: int, steps: int) -> None:
    """One rank of a timing, on one core: seconds and CPU seconds of a step, and of summing the gradients alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["MLX_RANK"])]})
    from mlx.utils import tree_map

    from mlxstories.data.dataset import DataConfig, load_dataset
    from mlxstories.distributed import join
    from mlxstories.model import parameter_count, size_config
    from mlxstories.training import experiment
    from mlxstories.training.config import TrainingConfig
    from mlxstories.training.losses import objective
    from mlxstories.training.phases import PHASE_1
    from mlxstories.training.step import TrainStep

    group = join()
    dataset = load_dataset(DataConfig(stories=500, validation=10))
    shape = size_config(size, dataset.tokenizer.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(batch_size=rows)
        trainer = experiment.start(Path(folder) / "run", dataset, shape, PHASE_1, config, print, group)
    step = TrainStep(trainer.model, trainer.optimizer, objective(shape), clip_norm=1.0, group=group)
    trainer.model.train()
    zeros = tree_map(mx.zeros_like, trainer.model.parameters())

    def timed(action) -> tuple[list[float], float]:
        walls, cpu = [], time.process_time()
        for number in range(steps):
            began = time.perf_counter()
            mx.eval(action(number))
            walls.append(time.perf_counter() - began)
        return walls, (time.process_time() - cpu) / steps

    for number in range(3):
        mx.eval(step([next(trainer.stream)], number))
    walls, cpu = timed(lambda number: (step([next(trainer.stream)], number), trainer.model.state))
    sums, _ = timed(lambda number: group.sum(zeros))
    parameters = parameter_count(trainer.model)
    print(json.dumps({"walls": walls, "cpu": cpu, "sums": sums, "parameters": parameters}))


def speed(folder: Path, size: str, rounds: int, rows: int = 8, steps: int = 6) -> dict:
    """One and two processes on the same global batch, in alternating rounds."""
    code = f"import scaling; scaling.worker({size!r}, {rows}, {steps})"
    rounds_of: dict[int, list[list[dict]]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, results in rounds_of.items():
            processes = ranks.start(
                count, [sys.executable, "-c", code], folder, stdout=subprocess.PIPE, cwd=Path(__file__).parent
            )
            results.append([json.loads(process.communicate()[0]) for process in processes])
    wall = {
        count: [statistics.median(result[0]["walls"]) for result in results]
        for count, results in rounds_of.items()
    }
    cpu = {
        count: statistics.median(sum(rank["cpu"] for rank in result) for result in results)
        for count, results in rounds_of.items()
    }
    ratios = sorted(one / two for one, two in zip(wall[1], wall[2], strict=True))
    found = {
        "size": size,
        "parameters": rounds_of[1][0][0]["parameters"],
        "rows": rows,
        "rounds": rounds,
        "milliseconds a step": {
            count: round(1e3 * statistics.median(times), 1) for count, times in wall.items()
        },
        "CPU milliseconds a step": {count: round(1e3 * value, 1) for count, value in cpu.items()},
        "speed-up": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]},
        "CPU work of one over that of two": cpu[1] / cpu[2],
        "milliseconds to sum the gradients": round(
            1e3 * statistics.median(statistics.median(result[0]["sums"]) for result in rounds_of[2]), 2
        ),
    }
    click.echo(json.dumps(found, indent=2))
    return found


def paper() -> list[dict]:
    """Seconds to sum the gradients of a step in a ring, and how long a step on one computer must take for two to
    reach 90 % of twice its speed.

    Each of N processes sends 2 (N - 1) / N of the gradient's S bytes in 2 (N - 1) messages, so the sum takes
    c = 2 (N - 1) / N S / B + 2 (N - 1) L over links of B bytes and L seconds. It follows the backward pass, so the
    efficiency is (t / N) / (t / N + c) for a step of t seconds on one computer, and 90 % needs t = 9 N c.
    """
    from mlxstories.model import Transformer, parameter_count, size_config

    found = []
    for size in SIZES:
        parameters = parameter_count(Transformer(size_config(size, 8192)))
        for link, (bits, latency) in LINKS.items():
            for count in (2, 4):
                seconds = 2 * (count - 1) / count * 4 * parameters / (bits / 8) + 2 * (count - 1) * latency
                found.append(
                    {
                        "size": size,
                        "parameters": parameters,
                        "megabytes": 4 * parameters / 1e6,
                        "processes": count,
                        "link": link,
                        "milliseconds": 1e3 * seconds,
                        "milliseconds of a step for 90 %": 1e3 * 9 * count * seconds,
                    }
                )
    for row in found:
        click.echo(
            f"{row['size']:6}{row['megabytes']:7.1f} MB  {row['processes']} x {row['link']:20}"
            f"{row['milliseconds']:9.1f} ms a sum; 90 % from steps of "
            f"{row['milliseconds of a step for 90 %']:,.0f} ms"
        )
    return found


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="Repeatable.")
@click.option("--rounds", default=5, show_default=True, help="Of the timing.")
@click.option("--size", default="small", show_default=True, help="Of the timed model.")
@click.option("--endings", default=1, show_default=True, help="Runs that are ended early in each way.")
@click.option("--most", default=4, show_default=True, help="Processes.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write everything there.")
def main(parts: tuple[str, ...], rounds: int, size: str, endings: int, most: int, path: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script's shell
    counts = range(2, most + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = {
            "losses": lambda: losses(folder, counts),
            "kills": lambda: interrupted(folder, counts, endings),
            "speed": lambda: speed(folder, size, rounds),
            "paper": paper,
        }
        result = {part: run[part]() for part in PARTS if part in parts}
    if path is not None:
        write_json(path, result)


if __name__ == "__main__":
    main()
