"""What rotary positions do to the logits: the same model with and without them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import ask, noised, plain, rounds_inside
from mlxstories.ladder.patches import Patches


@measurement
def rotations(bench: Bench) -> float | None:
    """The largest change of a logit, relative to their spread, when MLX's rotations are left out; None without any, or
    where the model rounds inside. Weights of 16 bits are converted to 32."""
    if rounds_inside(bench):
        return None
    first, model, calls = plain(bench), noised(bench), []
    turned = first.logits
    if not first.full_precision:
        model.set_dtype(mx.float32)
        turned = ask(bench, model, first.row)[0]
    with Patches() as patches:
        patches.replace(mx.fast, "rope", lambda x, *_, **__: calls.append(1) or x)
        unturned = ask(bench, model, first.row)[0]
    return float(np.abs(unturned - turned).max()) / first.spread if calls else None
