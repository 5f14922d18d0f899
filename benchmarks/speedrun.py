"""The speedrun: from the start of training to 99 % of the ceiling and 3 % above the floor, on held-out stories.

    python benchmarks/speedrun.py [--seeds 3] [--without mixing] [--json result.json]
    python benchmarks/speedrun.py --stories 4000 --size base     # a tenth of phase 1's tokens

Telling and tokenising the stories, compiling and the evaluation count; Python's imports do not. One epoch of the
built-in stories, each seen once; the 500 held-out stories are looked at once, at the end. A run that ends outside of
either threshold has not reached it and says so.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import click

from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.tokenizer import END
from mlxstories.model import size_config
from mlxstories.model.config import SIZES
from mlxstories.training.config import TrainingConfig
from mlxstories.training.experiment import train
from mlxstories.training.phases import RECORD, SPEEDRUN

CEILING, FLOOR = 0.99, 1.03  # shares of the source's own accuracy and entropy
WITHOUT = {
    "rest_rate": {"optimizer": dataclasses.replace(SPEEDRUN.optimizer, rest_learning_rate=None)},
    "mixing": {"mixing": 1},
    "cooldown": {"schedule": dataclasses.replace(SPEEDRUN.schedule, cooldown=0.3)},
    "qk_norm": {"qk_norm": False},
    "relu2": {"feed_forward": "swiglu"},
    "polar_express": {"optimizer": dataclasses.replace(SPEEDRUN.optimizer, orthogonalizer="jordan")},
}


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Runs, of seeds --first and on.")
@click.option("--first", default=0, show_default=True)
@click.option("--stories", default=RECORD["stories"], show_default=True, help="To train on.")
@click.option("--epochs", default=RECORD["epochs"], show_default=True, help="Times through the stories.")
@click.option("--size", type=click.Choice(sorted(SIZES)), default=RECORD["size"], show_default=True)
@click.option("--layers", default=RECORD["layers"], show_default=True)
@click.option("--batch-size", default=4, show_default=True)
@click.option("--without", type=click.Choice(sorted(WITHOUT)), help="Leave an ingredient out.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
def main(seeds, first, stories, epochs, size, layers, batch_size, without, path):
    phase = dataclasses.replace(SPEEDRUN, **WITHOUT[without]) if without else SPEEDRUN
    training = TrainingConfig(epochs=epochs, batch_size=batch_size, evaluations=1)
    runs = []
    for seed in range(first, first + seeds):
        runs.append(run(phase, stories, size, layers, dataclasses.replace(training, seed=seed)))
        print("{seed}: {seconds:.1f} s, {cpu:.1f} s of CPU time, {tokens:,} tokens, {updates:,} updates, "
              "loss {loss:.4f} (x {over_floor:.4f}), accuracy x {of_ceiling:.4f}, reached: {reached}"
              .format(**runs[-1]), flush=True)  # fmt: skip
    shape = {"size": size, "layers": layers, "batch_size": batch_size}
    result = {"without": without, **shape, "stories": stories, "epochs": epochs, "runs": runs}
    for name in ("seconds", "cpu"):
        result[name] = statistics.median(one[name] for one in runs)
    print(f"median {result['seconds']:.1f} s, {result['cpu']:.1f} s of CPU time; "
          f"{sum(one['reached'] for one in runs)} of {len(runs)} reached both")  # fmt: skip
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def run(phase, stories: int, size: str, layers: int, training: TrainingConfig) -> dict:
    """A training from nothing, and whether it got there."""
    began, worked = time.perf_counter(), time.process_time()
    dataset = load_dataset(DataConfig(stories=stories))
    shape = size_config(size, dataset.tokenizer.vocab_size, layers=layers, separator=END, **phase.parts())
    with tempfile.TemporaryDirectory() as folder:
        found = train(Path(folder) / "run", dataset, shape, phase, training)
    over, of = found["loss"] / found["floor"], found["accuracy"] / found["ceiling"]
    return {
        "seed": training.seed,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - worked,
        "tokens": int(found["trained_tokens"]),
        "updates": found["steps"],
        "loss": found["loss"],
        "over_floor": over,
        "of_ceiling": of,
        "reached": bool(of >= CEILING and over <= FLOOR),
    }


if __name__ == "__main__":
    main()
