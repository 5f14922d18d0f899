"""Whether training's inputs are corrupted on purpose: drawn anew in each epoch, while the targets stay."""

from __future__ import annotations

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.rows import alignments
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import second_epoch, train_epoch

_ROWS = 8  # at least, that both epochs hold
_MOST = 0.5  # of the inputs may be other tokens


@measurement
def corrupted(bench: Bench) -> bool:
    """Whether most inputs are the tokens before their targets, and rows with the same targets have other inputs in
    another epoch, as with noise or dropped words. A mistake in the rows would be the same in each epoch."""
    if alignments(bench)["train_batches"].rates[1] < _MOST:
        return False
    first, second = (_by_targets(epoch) for epoch in (train_epoch(bench), second_epoch(bench)))
    common = first.keys() & second.keys()
    return len(common) >= _ROWS and all(not np.array_equal(first[key], second[key]) for key in common)


def _by_targets(epoch: Epoch) -> dict[bytes, np.ndarray]:
    """Inputs [T] of each row by its targets."""
    return {
        targets.tobytes(): inputs
        for batch in epoch.batches
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True)
    }
