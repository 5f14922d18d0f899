"""Run files as training writes them, made of formulas."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mlxstories.runs.directory import Run

PARTS = ("embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "norm")


def records(*, steps=600, per_epoch=200, floor=1.9, speed=60.0, seed=0, accumulation=1, blocks=True):
    rng = np.random.default_rng(seed)
    for step in range(0, steps + 1, 10):
        position = {"step": step, "epoch": round(step / per_epoch, 4), "tokens": step * 4096 * accumulation}
        loss = floor * 1.01 + 6 * math.exp(-step / speed)
        accuracy = 0.7 * (1 - math.exp(-step / speed))
        if step:
            norms = {
                part: 0.2 + rng.random() / (1 + depth) + 2 * math.exp(-step / 50)
                for depth, part in enumerate(PARTS)
            }
            yield {
                **position,
                "split": "train",
                "loss": loss + 0.05 * rng.standard_normal(),
                "accuracy": min(1, max(0, accuracy + 0.01 * rng.standard_normal())),
                "grad_norm": math.hypot(*norms.values()),
                "block_grad_norms": norms if blocks else {},
                "tokens_per_second": 20_000.0,
                "learning_rate": 1e-3 * min(1, step / 30) * (0.55 + 0.45 * math.cos(math.pi * step / steps)),
            }
        if step % 50 == 0:
            yield {**position, "split": "val", "loss": loss, "accuracy": accuracy}


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, floor=..., **options of records) -> Run``"""

    def make(name="phase1-base", *, floor=(1.9, 0.706), **options):
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        known = floor and {"nats": floor[0], "accuracy": floor[1]}
        config = {"format": 1, "name": name, "seed": options.get("seed", 0), "parameters": 4_180_000}
        (path / "config.json").write_text(json.dumps(config | {"floor": known}))
        options.setdefault("floor", floor[0] if floor else 1.5)
        lines = (json.dumps(record) for record in records(**options))
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return Run(path)

    return make
