"""Layers that a program translated to MLX: what the ladder says of each, beside figures of our own.

    git clone https://github.com/dnakov/llm-asi-arch
    python benchmarks/ported.py llm-asi-arch/mlx_architectures --number 40 --json ported.json

Each file of the folder defines a class ``DeltaNet(hidden_size=, num_heads=, ...)`` that maps [B, T, D] to [B, T, D], or
to a tuple that begins with it. It takes attention's place in a plain decoder of two blocks, on bytes of the built-in
stories. The ladder climbs that; and apart from it, without any code of the ladder's, logits are compared that must be
alike, and gradients are counted that are 0. Each file is examined in a process of its own; results are written after
each, and a file that has one is not examined again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mutating.forked import ended_with, forked

WIDTH, HEADS, BLOCKS, LENGTH, ROWS, IDS = 64, 4, 2, 48, 8, 256
_NOISE = 5e-6  # of the largest change: what rounding may move logits that must be alike
_MOST = 240  # CPU seconds of one file: some layers go through a row in Python
_SHORT, _CHANGED = 29, 30  # tokens that are left, and the first that is changed


class Block(nn.Module):
    """The layer, and a feed-forward part, each added to what came in."""

    def __init__(self, layer: type[nn.Module], index: int):
        super().__init__()
        self.first, self.second = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.mixer = layer(hidden_size=WIDTH, d_model=WIDTH, num_heads=HEADS, layer_idx=index)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def __call__(self, x: mx.array) -> mx.array:
        mixed = self.mixer(self.first(x))
        x = x + (mixed[0] if isinstance(mixed, tuple) else mixed)
        return x + self.down(nn.gelu(self.up(self.second(x))))


class Decoder(nn.Module):
    """Logits [B, T, 256] of bytes [B, T]."""

    def __init__(self, layer: type[nn.Module]):
        super().__init__()
        self.table = nn.Embedding(IDS, WIDTH)
        self.blocks = [Block(layer, index) for index in range(BLOCKS)]
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, IDS, bias=False)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.table(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def layer_of(file: Path) -> type[nn.Module]:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DeltaNet


def rows(part: str) -> np.ndarray:
    """int32 [N, T + 1]: bytes of stories that no other part has."""
    from mlxstories.data.source import texts

    ids = np.frombuffer(" ".join(texts(1000 if part == "train" else 100, part)).encode(), np.uint8)
    return ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1).astype(np.int32)


def batches(table: np.ndarray) -> Iterator[tuple]:
    for start in range(0, len(table) - ROWS + 1, ROWS):
        inputs, targets = table[start : start + ROWS, :-1], table[start : start + ROWS, 1:]
        yield inputs, targets, np.ones(targets.shape, np.float32)


def said(file: Path) -> dict:
    """The ladder's findings of the decoder with this layer."""
    from mlxstories.ladder import Subject, diagnose

    layer, train, val = layer_of(file), rows("train"), rows("val")
    subject = Subject(
        model=lambda: Decoder(layer),
        vocab_size=IDS,
        train_batches=lambda seed: batches(np.random.default_rng(seed).permutation(train)),
        val_batches=lambda: batches(val),
    )
    return {
        "findings": [
            [f.severity, f.code, f.message, f.where.get("line") if isinstance(f.where, dict) else None]
            for f in diagnose(subject).findings
        ]
    }


def measured(file: Path) -> dict:
    """What must be alike and is not, as a share of the largest change that an input made; and dead parameters."""
    mx.random.seed(0)
    model, tokens = Decoder(layer_of(file)), rows("train")[:ROWS]
    model.eval()

    def logits(ids: np.ndarray) -> np.ndarray:
        return np.array(model(mx.array(ids)).astype(mx.float32))

    whole, shifted = logits(tokens[:, :-1]), (tokens + 7) % IDS
    ends, others = tokens[:, :-1].copy(), tokens[:, :-1].copy()
    ends[:, _CHANGED:], others[1:] = shifted[:, _CHANGED:-1], shifted[1:, :-1]
    moved = np.abs(logits(ends) - whole)
    scale = moved[:, _CHANGED:].max()
    found = {
        "not-repeatable": np.abs(logits(tokens[:, :-1]) - whole).max(),
        "future-leak": moved[:, :_CHANGED].max(),
        "batch-leak": np.abs(logits(others) - whole)[0].max(),
        "length-dependent": np.abs(logits(tokens[:, :_SHORT]) - whole[:, :_SHORT]).max(),
    }
    shares = {name: float(value / scale) for name, value in found.items()}
    return {"finite": bool(np.isfinite(whole).all()), "shares": shares, **_gradients(model, tokens)}


def _gradients(model: Decoder, tokens: np.ndarray) -> dict:
    model.train()

    def loss(model: Decoder) -> mx.array:
        return nn.losses.cross_entropy(
            model(mx.array(tokens[:, :-1])), mx.array(tokens[:, 1:]), reduction="mean"
        )

    slopes = dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))
    return {
        "gradients finite": all(bool(mx.isfinite(slope).all()) for slope in slopes.values()),
        "dead": [name for name, slope in slopes.items() if not bool(mx.any(slope != 0))],
        "hidden": [
            f"{path}.{name}"
            for path, module in model.named_modules()
            for name, value in module.items()
            if name.startswith("_") and isinstance(value, nn.Module)
        ],
    }


def true_of(figures: dict) -> list[str]:
    """The causes that the figures show."""
    shares = figures["shares"]
    noise = max(_NOISE, 5 * shares["not-repeatable"])
    causes = [
        name for name, share in shares.items() if share > (noise if name != "not-repeatable" else _NOISE)
    ]
    broken = not (figures["finite"] and figures["gradients finite"])
    named = {"not-finite": broken, "dead-parameters": figures["dead"], "hidden-parameters": figures["hidden"]}
    return [*(name for name, holds in named.items() if holds), *causes]


def examined(file: Path) -> dict:
    """Both, of one file; where a process ended otherwise, how."""
    answers = {}
    for name, function in (("said", said), ("measured", measured)):
        found, seconds = forked(function, file, most=_MOST)
        answers[name] = found if isinstance(found, dict) else {"failed": ended_with(found)}
        answers[name]["seconds"] = round(seconds, 1)
    return answers


def row(name: str, answer: dict) -> str:
    told, figures = answer["said"], answer["measured"]
    findings = told.get("findings", [])
    words = ", ".join(
        f"{code}{f' at {line}' if line else ''}{'' if severity == 'error' else ' (warning)'}"
        for severity, code, _, line in findings
    )
    shown = figures.get("failed") or ", ".join(true_of(figures)) or "nothing"
    return f"| `{name}` | {told.get('failed') or words or 'none'} | {shown} | {told['seconds']:.0f} |"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--number", default=40, show_default=True, help="Files, drawn by the seed.")
@click.option("--seed", default=7, show_default=True)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(folder: Path, number: int, seed: int, out: Path) -> None:
    """Climb layers of FOLDER, and measure them apart."""
    files = sorted(folder.glob("*.py"))
    random.Random(seed).shuffle(files)
    known = json.loads(out.read_text()) if out.exists() else {}
    click.echo("| layer | the ladder | measured apart | CPU s |\n| --- | --- | --- | ---: |")
    for file in files[:number]:
        if file.stem not in known:
            known[file.stem] = examined(file.resolve())
            out.write_text(json.dumps(known, indent=1))
        click.echo(row(file.stem, known[file.stem]))


if __name__ == "__main__":
    main()
