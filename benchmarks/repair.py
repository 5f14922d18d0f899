"""Faults of training dynamics planted in a run, which `mlxstories train --repair` has to save.

    python benchmarks/repair.py --seeds 0,1,2 --jobs 2 --json repair.json

Every fault is trained as it is and with repair; beside it stands the healthy run of the same optimiser. A fault is
saved when its validation loss ends within 2 % of the healthy run's (or below). Healthy runs are trained with repair
too: none may be touched.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SIZE, CONTEXT, BATCH = "debug", 64, 4
WITHIN = 1.02
REPAIRS = 3


@dataclass(frozen=True)
class Fault:
    """What is planted: changes of the healthy recipe ``of``, or something done to the trainer."""

    name: str
    of: str
    changes: dict[str, Any] = field(default_factory=dict)
    plant: Callable | None = None


def scaled(factor: float) -> Callable:
    """Initial weights times ``factor``; norms stay."""

    def plant(trainer) -> None:
        from mlx.utils import tree_map

        trainer.model.update(tree_map(lambda w: w * factor if w.ndim == 2 else w, trainer.model.parameters()))

    return plant


def corrupted(mask: float, *places: tuple[int, int]) -> Callable:
    """The mask of some microbatches holds ``mask`` at one place, as a broken loader may write it."""

    def plant(trainer) -> None:
        original = type(trainer.stream)

        class Corrupted(original):
            def __next__(self):
                place = (self.epoch, self.batch)
                batch = super().__next__()
                if place in places:
                    batch = batch._replace(mask=batch.mask.at[0, 0].add(mask))
                return batch

        trainer.stream.__class__ = Corrupted

    return plant


def healthy() -> dict[str, Any]:
    """The recipes that faults are planted in: the three phases as they are shipped, and other optimisers at a rate
    that suits them."""
    from mlxstories.training.phases import PHASES, override

    return {
        "phase 1": PHASES[1],
        "phase 2": PHASES[2],
        "phase 3": PHASES[3],
        "tuned": override(PHASES[1], {"optimizer.learning_rate": 5e-3}),
        "sgd": override(PHASES[1], {"optimizer.name": "sgd", "optimizer.learning_rate": 0.2}),
        "lion": override(PHASES[1], {"optimizer.name": "lion", "optimizer.learning_rate": 1e-3}),
        "long warmup": override(PHASES[1], {"schedule.warmup": 0.3}),
        "noam": override(PHASES[1], {"schedule.name": "noam", "schedule.warmup": 30}),
        "constant": override(PHASES[1], {"schedule.name": "constant"}),
        "no clip": override(PHASES[1], {"clip_norm": None}),
    }


def faults() -> list[Fault]:
    """All that is planted."""
    rate = "optimizer.learning_rate"
    found = [Fault(f"adamw, rate {value:g}", "phase 1", {rate: value}) for value in (1e-6, 1e-5, 1e-4, 3e-4)]
    found += [Fault(f"adamw, rate {value:g}", "phase 1", {rate: value}) for value in (0.1, 0.3, 1.0)]
    found += [Fault(f"phase 2, rate {value:g}", "phase 2", {rate: value}) for value in (1e-6, 1.0)]
    found += [Fault(f"muon, rate {value:g}", "phase 3", {rate: value}) for value in (1e-6, 1e-4, 10.0)]
    found += [Fault(f"sgd, rate {value:g}", "sgd", {rate: value}) for value in (1e-6, 1e-4, 100.0)]
    found += [Fault(f"lion, rate {value:g}", "lion", {rate: value}) for value in (1e-6, 1.0)]
    found += [
        Fault("sgd, rate 30, no clip", "sgd", {rate: 30.0, "clip_norm": None}),
        Fault("sgd, clip 1e-4", "sgd", {"clip_norm": 1e-4}),
        Fault("adamw, clip 1e-9", "phase 1", {"clip_norm": 1e-9}),
        Fault("weight decay 300", "phase 1", {"optimizer.weight_decay": 300.0}),
        Fault(
            "weight decay 300, everywhere",
            "phase 1",
            {"optimizer.weight_decay": 300.0, "optimizer.decay": "all"},
        ),
        Fault("sgd, coupled decay 1", "sgd", {"optimizer.weight_decay": 1.0}),
        Fault("warmup 0.95 of the run", "phase 1", {"schedule.warmup": 0.94}),
        Fault(
            "warmup 10,000 updates", "phase 1", {"schedule.name": "linear_warmup", "schedule.warmup": 10_000}
        ),
        Fault("eps 1", "phase 1", {"optimizer.eps": 1.0}),
        Fault("betas 0.999, 0.9999", "phase 1", {"optimizer.betas": (0.999, 0.9999)}),
        Fault(
            "no bias correction, beta2 0.99999",
            "phase 1",
            {"optimizer.bias_correction": False, "optimizer.betas": (0.9, 0.99999)},
        ),
        Fault("label smoothing 0.95", "phase 1", {"label_smoothing": 0.95}),
        Fault("sgd, momentum 0.9999", "sgd", {"optimizer.momentum": 0.9999}),
        Fault("initial weights x 30", "phase 1", plant=scaled(30.0)),
        Fault("initial weights x 0.01", "phase 1", plant=scaled(0.01)),
        Fault("an infinite batch", "phase 1", plant=corrupted(3e38, (0, 97))),
        Fault("two infinite batches, early", "phase 1", plant=corrupted(3e38, (0, 25), (0, 26))),
        Fault("a batch weighs 1e30", "phase 1", plant=corrupted(1e30, (0, 97))),
    ]
    return found


@dataclass
class Outcome:
    """How a training ended: its last validation loss (infinite when it stopped), what was found and done, and the
    updates made over the updates planned."""

    loss: float
    codes: list[str]
    changes: list[str]
    updates: float
    cpu: float


def train(dataset, phase, plant: Callable | None, seed: int, steps: int, repairs: int) -> Outcome:
    from mlxstories.data.tokenizer import END
    from mlxstories.model import size_config
    from mlxstories.repair import GaveUp, train_and_repair
    from mlxstories.training import experiment
    from mlxstories.training.config import TrainingConfig
    from mlxstories.training.progress import NotFinite

    parts = {"separator": END, "context": CONTEXT, "qk_norm": phase.qk_norm}
    shape = size_config(SIZE, dataset.tokenizer.vocab_size, **parts)
    training = TrainingConfig(steps=steps, batch_size=BATCH, seed=seed, evaluations=3, max_repairs=repairs)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = experiment.start(Path(folder) / "run", dataset, shape, phase, training, lambda record: None)
        if plant is not None:
            plant(trainer)
        try:
            loss = (train_and_repair(trainer, repairs) if repairs else trainer.train()).loss
        except (NotFinite, GaveUp):
            loss = math.inf
    done = [
        ", ".join(f"{path.rpartition('.')[2]} {new}" for path, (_, new) in repair["changes"].items())
        or (f"{len(repair['skipped'])} microbatches left out" if repair["skipped"] else "weights drawn anew")
        for repair in trainer.repairs
    ]
    return Outcome(
        loss,
        [repair["code"] for repair in trainer.repairs],
        done,
        (trainer.progress.step + trainer.progress.extra_updates) / steps,
        time.process_time() - began,
    )


def measure(kind: str, name: str, seed: int, steps: int, stories: int) -> dict[str, Any]:
    """One healthy run with repair, or one fault without and with it."""
    from mlxstories.data.dataset import DataConfig, load_dataset
    from mlxstories.training.phases import override

    dataset, recipes = load_dataset(DataConfig(stories=stories, validation=60)), healthy()
    row = {"name": name, "seed": seed, "of": None, "untreated": None}
    if kind == "healthy":
        return row | dataclasses.asdict(train(dataset, recipes[name], None, seed, steps, REPAIRS))
    fault = next(fault for fault in faults() if fault.name == name)
    phase = override(recipes[fault.of], fault.changes)
    row |= {"of": fault.of, "untreated": train(dataset, phase, fault.plant, seed, steps, 0).loss}
    return row | dataclasses.asdict(train(dataset, phase, fault.plant, seed, steps, REPAIRS))


def with_healthy(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The faults, each with the loss of its healthy run."""
    known = {(row["name"], row["seed"]): row["loss"] for row in rows if row["of"] is None}
    found = [row for row in rows if row["of"] and (row["of"], row["seed"]) in known]
    return [row | {"healthy": known[row["of"], row["seed"]]} for row in found]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of faults, means over the seeds, and the line of their sum."""
    planted: dict[str, list[dict[str, Any]]] = {fault.name: [] for fault in faults()}
    for row in sorted(with_healthy(rows), key=lambda row: row["seed"]):
        planted[row["name"]].append(row)
    lines = [
        "| planted | found | now, at the first seed | loss without | with | healthy | worst ratio | updates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in planted.items():
        if found:
            codes = sorted({code for row in found for code in row["codes"]})
            losses = (fmean(row[key] for row in found) for key in ("untreated", "loss", "healthy"))
            lines.append(
                f"| {name} | {', '.join(f'`{code}`' for code in codes) or '–'} "
                f"| {'; '.join(found[0]['changes']) or '–'} "
                f"| {' | '.join('∞' if math.isinf(loss) else f'{loss:,.2f}' for loss in losses)} "
                f"| {max(row['loss'] / row['healthy'] for row in found):.3f} "
                f"| {fmean(row['updates'] for row in found):.2f} |"
            )
    return "\n".join([*lines, "", summary(rows)])


def summary(rows: list[dict[str, Any]]) -> str:
    """Shares, and what it cost; a fault that alone costs less than 2 % is not counted."""
    planted = with_healthy(rows)
    real = [row for row in planted if not row["untreated"] <= WITHIN * row["healthy"]]
    saved = sum(row["loss"] <= WITHIN * row["healthy"] for row in real)
    fine = [row for row in rows if row["of"] is None]
    touched = sum(bool(row["codes"]) for row in fine)
    cost = sum(row["updates"] for row in real) / max(1, len(real))
    return (
        f"{saved} of {len(real)} harmful faults end within 2 % of the healthy run or below it; "
        f"{len(planted) - len(real)} more did no harm; {cost:.2f} times the planned updates on average; "
        f"{touched} of {len(fine)} healthy runs were touched."
    )


@click.command()
@click.option("--seeds", default="0", show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of a run.")
@click.option("--stories", default=300, show_default=True, help="Stories trained on.")
@click.option("--only", multiple=True, help="Runs whose name contains this.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(seeds, steps, stories, only, jobs, path):
    """Measure, and print the table."""
    from mlxstories.runs.directory import write_json

    named = [("healthy", name) for name in healthy()] + [("fault", fault.name) for fault in faults()]
    tasks = [
        (kind, name, int(seed), steps, stories)
        for seed in seeds.split(",")
        for kind, name in named
        if not only or any(text in name for text in only)
    ]
    rows = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, *task) for task in tasks]):
            rows.append(future.result())
            click.echo(f"{len(rows)} of {len(tasks)}: {rows[-1]}", err=True)
            if path:
                write_json(path, {"steps": steps, "stories": stories, "runs": rows})
    click.echo(markdown(rows))


if __name__ == "__main__":
    main()
