"""The backward pass compared with differences of the forward pass, module by module (a gradient check)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench.arrays import central_difference, is_pattern, masked_mean, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.consistency import noised, plain, short
from mlxstories.ladder.bench.step.step_loss import is_random
from mlxstories.ladder.patches import Patches
from mlxstories.trees import by_path

_MODULES, _ROWS, _LENGTH = 16, 4, 32
_DIRECTIONS = 3
_STEP, _LARGEST = 0.02, 0.2  # of the weights' size
_FINER = 8  # parts of the step, for what is not told by it
_TOLD = 1e-4  # a change of the loss, in nats, which float32 rounds by less than a hundredth
_SUSPECT = 0.08  # of the gradient, from which smaller steps are made too


@dataclass(frozen=True)
class Derivative:
    """One module's weights.

    Attributes:
        name: its path.
        parameter: the path of its largest array.
        missing: how far apart gradient and differences are, as a share of the gradient: the root mean square over
            random directions, in which a gradient of 0 would give 1.
        unsteady: how far apart the differences of two smaller steps are, measured alike: at a kink or a jump there is
            no derivative.
    """

    name: str
    parameter: str
    missing: float
    unsteady: float


@dataclass(frozen=True)
class Derivatives:
    """Of all modules asked, in the order of the parameters.

    Attributes:
        stops: calls of ``mx.stop_gradient`` in a forward pass.
    """

    modules: list[Derivative]
    stops: int


@measurement
def derivatives(bench: Bench) -> Derivatives:
    """Compare up to 16 modules spread over the model; none with weights of 16 bits, whose rounding drowns the
    differences."""
    model = noised(bench)
    if not plain(bench).full_precision or not tree_flatten(model.trainable_parameters()):
        return Derivatives([], 0)
    model.eval()
    batch = short(bench, slice(_ROWS), _LENGTH)
    groups = _groups(model, bench.gradients(model, batch))
    loss = partial(_loss, bench, model, batch)
    chosen = list(groups.items())[:: max(1, -(-len(groups) // _MODULES))]
    found = [_ask(bench, model, loss, name, slopes) for name, slopes in chosen]
    return Derivatives([one for one in found if one is not None], _stops(bench, model, batch))


@measurement
def derivative_in_training(bench: Bench) -> Derivative | None:
    """The same for all weights at once, in training mode, with the random state restored before each pass; None where
    the model is not random there, does not repeat even so, or stops gradients on purpose."""
    model = noised(bench)
    model.train()
    if not plain(bench).full_precision or not is_random(bench, model):
        return None
    batch = short(bench, slice(_ROWS), _LENGTH)
    loss = partial(_loss, bench, model, batch)
    if loss() != loss() or _stops(bench, model, batch):
        return None
    bench.seed_all(1)
    slopes = {
        n: g for group in _groups(model, bench.gradients(model, batch)).values() for n, g in group.items()
    }
    return _ask(bench, model, loss, "", slopes) if slopes else None


def _groups(model: nn.Module, gradients: dict[str, mx.array]) -> dict[str, dict[str, mx.array]]:
    """Gradients by module, of the arrays that have one."""
    arrays = by_path(model.trainable_parameters())
    found: dict[str, dict[str, mx.array]] = {}
    for name, slope in gradients.items():
        if name in arrays and not is_pattern(arrays[name]) and bool(mx.any(slope != 0)):
            found.setdefault(name.rpartition(".")[0], {})[name] = slope
    return found


def _loss(bench: Bench, model: nn.Module, batch: HostBatch) -> float:
    bench.seed_all(1)
    with bench.calling("model(tokens)"):
        return float(masked_mean(model, batch.device()))


def _ask(
    bench: Bench, model: nn.Module, loss: Callable[[], float], name: str, slopes: dict[str, mx.array]
) -> Derivative | None:
    """Move one module's weights along random directions; None where the loss moves too little to tell."""
    kept = {path: a for path, a in by_path(model.trainable_parameters()).items() if path in slopes}
    sizes = {path: max(float(mx.sqrt(a.square().mean())), _STEP) for path, a in kept.items()}
    expected = float(np.hypot.reduce([size * float(mx.linalg.norm(slopes[p])) for p, size in sizes.items()]))
    step = max(_STEP, _TOLD / expected) if expected else np.inf
    if step > _LARGEST:
        return None
    rng = np.random.default_rng((bench.seed, 47))
    missing, unsteady = [], []
    for _ in range(_DIRECTIONS):
        along = {
            p: mx.array(rng.standard_normal(a.shape, dtype=np.float32)) * sizes[p] for p, a in kept.items()
        }
        slope = float(sum((slopes[p] * along[p]).sum() for p in along))

        def moved(by: float, along=along) -> float:
            put(model, {p: kept[p] + by * along[p] for p in along})
            return loss()

        taken = central_difference(moved, step)
        if abs(taken - slope) > _SUSPECT * expected:  # curvature, a kink, or the backward pass
            coarse, taken = (central_difference(moved, step / parts) for parts in (2, _FINER))
            unsteady.append((taken - coarse) / expected)
        put(model, kept)
        if not taken:
            return None  # rounded on purpose: a straight-through gradient is not a derivative
        missing.append((taken - slope) / expected)
    largest = max(kept, key=lambda path: kept[path].size)
    return Derivative(name, largest, _root_mean_square(missing), _root_mean_square(unsteady))


def _root_mean_square(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0


def _stops(bench: Bench, model: nn.Module, batch: HostBatch) -> int:
    """How often a forward pass stops gradients on purpose."""
    made: list[int] = []
    stop = mx.stop_gradient
    with Patches() as patches:
        patches.replace(mx, "stop_gradient", lambda *a, **k: made.append(1) or stop(*a, **k))
        bench.logits(model, np.maximum(batch.inputs, 0))
    return len(made)
