"""What rotary positions do to the logits: the same model with and without them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, plain
from mlxstories.ladder.patches import Patches


@measurement
def rotations(bench: Bench) -> float | None:
    """The largest change of a logit, relative to their spread, where MLX's rotations are left out; None without any,
    or with weights of 16 bits."""
    first, calls = plain(bench), []
    if not first.full_precision:
        return None
    with Patches() as patches:
        patches.replace(mx.fast, "rope", lambda x, *_, **__: calls.append(1) or x)
        unturned = ask(bench, noised(bench), first.row)[0]
    return float(np.abs(unturned - first.logits).max()) / first.spread if calls else None
