"""How many of phase 1's tokens phase 3 needs to the loss that phase 1 ends with, on texts of one's own.

    python benchmarks/fewer_tokens.py --data DIR --texts books-400,play-600 [--shares 0.333,0.25] [--json result.json]

Texts are named as in own_text.py. Both train a model of size small with 2,048 sub-word tokens, a context of 256 and no
dropout, a tenth held out: phase 1 for its four epochs in batches of four rows, then phase 3, its schedule over a share
of these tokens, in batches of ``--rows``. ``--set`` changes fields of phase 3, as in ``mlxstories train``. The losses
are of the last weights.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import click
from own_text import text

from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.tokenizer import END
from mlxstories.model import size_config
from mlxstories.storage.serialize import parse_json
from mlxstories.training.config import TrainingConfig
from mlxstories.training.experiment import train
from mlxstories.training.phases import PHASES, override

EPOCHS, ROWS = 4, 4  # of phase 1: what `train --phase 1` takes


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--texts", default="books-400,play-600", show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Runs of each, of seeds --first and on.")
@click.option("--first", default=0, show_default=True)
@click.option("--shares", default="0.333", show_default=True, help="Of phase 1's tokens, for phase 3.")
@click.option("--rows", default=4, show_default=True, help="Of phase 3's batches.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Of phase 3.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the runs there, as they come.")
def main(data, texts, seeds, first, shares, rows, settings, path):
    changes = dict(setting.split("=", 1) for setting in settings)
    recipe = override(PHASES[3], {field: _value(value) for field, value in changes.items()})
    runs: list[dict] = []
    for name in texts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "text.txt"
            file.write_text(text(data, name), encoding="utf-8")
            dataset = load_dataset(DataConfig(source=(str(file),), tokenizer="bpe", vocab_size=2048))
            for seed in range(first, first + seeds):
                plain = TrainingConfig(epochs=EPOCHS, batch_size=ROWS, evaluations=1, seed=seed)
                whole = measure(Path(folder) / f"{seed}", dataset, PHASES[1], plain)
                for run in _all(Path(folder), dataset, recipe, plain, whole, rows, shares):
                    runs.append({"text": name, **run})
                    print("{text}, seed {seed}, {phase}: {tokens:,} tokens (x {of_tokens:.3f}), {updates:,} updates, "
                          "{cpu:.0f} s of CPU time, loss {loss:.4f} (x {of_loss:.4f}), {bits:.4f} bits a character"
                          .format(**runs[-1]), flush=True)  # fmt: skip
                    if path:
                        path.write_text(json.dumps({"changes": changes, "runs": runs}, indent=2) + "\n")


def _all(folder: Path, dataset, recipe, plain: TrainingConfig, whole: dict, rows: int, shares: str):
    """Phase 1's run, and the recipe over each share of its rows, beside it."""
    yield whole | {"of_tokens": 1.0, "of_loss": 1.0}
    for share in shares.split(","):
        steps = int(float(share) * whole["updates"] * ROWS / rows)
        training = dataclasses.replace(plain, steps=steps, batch_size=rows)
        run = measure(folder / f"{plain.seed}-{share}", dataset, recipe, training)
        yield run | {"of_tokens": run["tokens"] / whole["tokens"], "of_loss": run["loss"] / whole["loss"]}


def measure(path: Path, dataset, phase, training: TrainingConfig) -> dict:
    """A training from nothing: what it took, and the held-out loss of the last weights, nats a token."""
    worked = time.process_time()
    shape = size_config("small", dataset.tokenizer.vocab_size, separator=END, **phase.parts())
    found = train(path, dataset, shape, phase, training)
    loss = found["last"]["loss"]
    return {
        "phase": phase.name,
        "seed": training.seed,
        "rows": training.batch_size,
        "tokens": int(found["trained_tokens"]),
        "updates": found["steps"],
        "cpu": time.process_time() - worked,
        "loss": loss,
        "bits": dataset.bits_per_character(loss),
    }


def _value(value: str):
    try:
        return parse_json(value)
    except ValueError:
        return value


if __name__ == "__main__":
    main()
