"""A tenth of phase 1's tokens: a wider model, batches that grow, and averaged weights outside of the blocks.

    python benchmarks/tenth.py [--seeds 2] [--first 2] [--rows 4:0.6,8:1] [--json result.json]

``--rows`` says how many rows an update has up to which share of all rows; the learning rate follows the rows read, so
that its shape over the tokens stays when batches grow. Embedding and last norm are also averaged (exponentially, 0.99
each four rows, a look every sixteen), and both kinds of weights are scored on the 500 held-out stories, once, at the
end. No command of mlxstories grows batches or averages weights; `TrainStep` is driven by hand here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import mlx.core as mx
import numpy as np

from mlxstories.batch import Batch
from mlxstories.data.dataset import DataConfig, Dataset, load_dataset
from mlxstories.data.tokenizer import END
from mlxstories.model import size_config
from mlxstories.optim import build_optimizer, build_schedule
from mlxstories.training.config import TrainingConfig
from mlxstories.training.evaluation import Evaluator
from mlxstories.training.experiment import new_model
from mlxstories.training.losses import objective
from mlxstories.training.phases import SPEEDRUN, override
from mlxstories.training.step import TrainStep
from mlxstories.training.stream import Stream
from mlxstories.trees import by_path

PHASE = override(SPEEDRUN, {"optimizer.momentum": 0.7})
STORIES = 4000
LOOK, DECAY = 16, 0.99**4  # rows between two looks at the weights, and what the average keeps at each


@click.command()
@click.option("--seeds", default=2, show_default=True, help="Runs, of seeds --first and on.")
@click.option("--first", default=2, show_default=True)
@click.option("--rows", default="4:0.6,8:1", show_default=True, metavar="ROWS:SHARE,...")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the runs there, as they come.")
def main(seeds, first, rows, path):
    stages = [(int(count), float(share)) for count, share in (stage.split(":") for stage in rows.split(","))]
    dataset = load_dataset(DataConfig(stories=STORIES))
    runs = []
    for seed in range(first, first + seeds):
        runs.append({"rows": rows, **run(dataset, stages, seed)})
        print(json.dumps(runs[-1]), flush=True)
        if path:
            path.write_text(json.dumps(runs, indent=2) + "\n")


def run(dataset: Dataset, stages: list[tuple[int, float]], seed: int) -> dict:
    """A training from nothing: what it took, and how far above the floor it ends, in percent of it."""
    worked = time.process_time()
    shape = size_config("base", dataset.tokenizer.vocab_size, layers=2, separator=END, **PHASE.parts())
    model = new_model(shape, seed)
    stream = Stream(dataset.train, shape.context, TrainingConfig(epochs=1, batch_size=1, seed=seed))
    sizes = batch_sizes(stream.length, stages)
    begins = np.cumsum([0, *sizes])
    by_row = build_schedule(PHASE.schedule, PHASE.optimizer.learning_rate, stream.length)
    rates = by_row(mx.array(begins[:-1], mx.int32))
    optimizer = build_optimizer(PHASE.optimizer, lambda step: rates[step.astype(mx.int32)])
    step = TrainStep(model, optimizer, objective(shape), clip_norm=PHASE.clip_norm)
    average, tokens = None, []
    for update, batch in enumerate(batches(stream, sizes)):
        model.train()
        result = step([batch], seed * 2**32 + update)
        tokens.append(result.tokens)
        if begins[update] // LOOK != begins[update + 1] // LOOK:
            average = averaged(average, outside_blocks(model))
    evaluator = Evaluator(model)
    ends = {"last": evaluator(dataset.val, dataset.floor)}
    model.load_weights(list(average.items()), strict=False)
    ends["averaged"] = evaluator(dataset.val, dataset.floor)
    return {
        "seed": seed,
        "tokens": sum(int(count) for count in tokens),
        "updates": len(sizes),
        "cpu": round(time.process_time() - worked),
        **{name: above_floor(end, dataset.floor) for name, end in ends.items()},
    }


def batch_sizes(total: int, stages: list[tuple[int, float]]) -> list[int]:
    """The rows of each update, until all ``total`` are read; the last ones may be fewer."""
    sizes, read = [], 0
    while read < total:
        count = next((count for count, share in stages if read < share * total), stages[-1][0])
        sizes.append(min(count, total - read))
        read += sizes[-1]
    return sizes


def batches(stream: Stream, sizes: list[int]) -> Iterator[Batch]:
    """The rows of ``stream``, which has one a batch, so many at a time."""
    for size in sizes:
        rows = [next(stream) for _ in range(size)]
        yield Batch(*(mx.concatenate(field) for field in zip(*rows, strict=True)))


def outside_blocks(model) -> dict[str, mx.array]:
    """The embedding and the last norm."""
    weights = by_path(model.parameters())
    return {name: weight for name, weight in weights.items() if not name.startswith("blocks.")}


def averaged(average: dict[str, mx.array] | None, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The average with one look more; the first is the weights themselves."""
    if average is None:
        return weights
    average = {name: DECAY * average[name] + (1 - DECAY) * weight for name, weight in weights.items()}
    mx.eval(average)
    return average


def above_floor(end, floor) -> dict[str, float]:
    """Of an evaluation: percent of the floor above it, in all and by kind of token, and percent of the ceiling."""
    kinds = {
        name: round(100 * (kind["loss"] - kind["floor"]) * kind["tokens"] / end.tokens / floor.nats, 2)
        for name, kind in end.by_kind.items()
    }
    all_of = round(100 * (end.loss / floor.nats - 1), 2)
    return {"all": all_of, **kinds, "of_ceiling": round(100 * end.accuracy / floor.accuracy, 2)}


if __name__ == "__main__":
    main()
