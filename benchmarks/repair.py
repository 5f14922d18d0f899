"""Faults of training dynamics planted in a run, which `mlxstories train --repair` has to save.

    python benchmarks/repair.py --seeds 0,1,2 --json repair.json

Every fault is trained as it is and with repair; beside it stands the healthy run of the same optimiser. A fault is
saved when its validation loss ends within 2 % of the healthy run's (or below). Healthy runs are trained with repair
too: none may be touched.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SIZE, CONTEXT, BATCH = "debug", 64, 4
WITHIN = 1.02


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
    from mlxstories.phases import PHASES, override

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
    from mlxstories import experiment
    from mlxstories.data.tokenizer import END
    from mlxstories.model import size_config
    from mlxstories.repair import GaveUp, train_and_repair
    from mlxstories.training import NotFinite, TrainingConfig

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
        ", ".join(f"{path.rpartition('.')[2]} {new}" for path, (_, new) in r["changes"].items())
        for r in trainer.repairs
    ]
    return Outcome(
        loss,
        [repair["code"] for repair in trainer.repairs],
        done,
        (trainer.progress.step + trainer.progress.extra_updates) / steps,
        time.process_time() - began,
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| fault | seed | found | repaired to | loss without | loss with | healthy | ratio | updates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['seed']} | {', '.join(row['codes']) or '–'} | {'; '.join(row['changes']) or '–'} "
            f"| {row['untreated']:.2f} | {row['loss']:.2f} | {row['healthy']:.2f} | {row['loss'] / row['healthy']:.2f} "
            f"| {row['updates']:.2f} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--seeds", default="0", show_default=True)
@click.option("--steps", default=300, show_default=True, help="Updates of a run.")
@click.option("--only", multiple=True, help="Faults whose name contains this.")
@click.option("--part", default="1/1", show_default=True, help="Of the work, as in 1/2 and 2/2.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
def main(seeds, steps, only, part, path):
    """Measure."""
    from mlxstories.data.dataset import DataConfig, load_dataset
    from mlxstories.phases import override
    from mlxstories.runs import write_json

    dataset = load_dataset(DataConfig(stories=300, validation=60))
    recipes, rows, fine = healthy(), [], {}
    index, parts = map(int, part.split("/"))
    for seed in map(int, seeds.split(",")):
        chosen = [fault for fault in faults() if not only or any(text in fault.name for text in only)]
        chosen = chosen[index - 1 :: parts]
        needed = {fault.of for fault in chosen} | (
            set(list(recipes)[index - 1 :: parts]) if not only else set()
        )
        for name in recipes:
            if name in needed:
                outcome = train(dataset, recipes[name], None, seed, steps, 3)
                fine[name, seed] = outcome
                click.echo(f"healthy {name} [{seed}]: {outcome}", err=True)
        for fault in chosen:
            phase = override(recipes[fault.of], fault.changes)
            without = train(dataset, phase, fault.plant, seed, steps, 0)
            outcome = train(dataset, phase, fault.plant, seed, steps, 3)
            facts = {
                "name": fault.name,
                "seed": seed,
                "untreated": without.loss,
                "healthy": fine[fault.of, seed].loss,
            }
            rows.append(facts | dataclasses.asdict(outcome))
            click.echo(f"{rows[-1]}", err=True)
    result = {
        "steps": steps,
        "faults": rows,
        "healthy": [{"name": n, "seed": s} | dataclasses.asdict(o) for (n, s), o in fine.items()],
    }
    if path:
        write_json(path, result)
    click.echo(markdown(rows))
    click.echo(summary(result))


def summary(result: dict[str, Any]) -> str:
    """One line: shares, and what it cost."""
    rows, fine = result["faults"], result["healthy"]
    real = [row for row in rows if not row["untreated"] <= WITHIN * row["healthy"]]
    saved = sum(row["loss"] <= WITHIN * row["healthy"] for row in real)
    touched = sum(bool(row["codes"]) for row in fine)
    cost = sum(row["updates"] for row in real) / max(1, len(real))
    return (
        f"{saved} of {len(real)} harmful faults end within 2 % of the healthy run ({len(rows) - len(real)} more did no "
        f"harm); {cost:.2f} times the planned updates on average; {touched} of {len(fine)} healthy runs were touched."
    )


if __name__ == "__main__":
    main()
