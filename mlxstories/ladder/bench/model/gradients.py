"""Gradients of the untrained model by parameter, over several steps of our own, so that only the model matters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_map

from mlxstories.ladder.bench.arrays import is_pattern
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.model.random_arrays import random_arrays
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.bench.step.received_gradient import loss_gradient, watched_step
from mlxstories.trees import by_path

STEPS = 6
_ROWS = 8
_FEW_UNITS = 8  # a layer of fewer has no share of them worth a word
_FAINT = 0.02  # of a usual start, 1/sqrt(fan in)
_MANY, _EVEN = 64, 1e-2  # entries of a matrix, and how far apart the sizes of their gradients may be


@dataclass
class Followed:
    """Gradients over ``STEPS`` steps of AdamW.

    Attributes:
        shapes: of all trainable parameters that are no masks and no whole numbers, by path.
        first, last: norms of the gradient at the first and the last step, by path.
        largest: the largest norm over the steps.
        alive: for every linear layer's weight, which of its units have received a gradient so far.
        matrices: paths of all matrices, trainable or not.
    """

    shapes: dict[str, tuple[int, ...]]
    matrices: list[str]
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    alive: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def infinite(self) -> str | None:
        """The first parameter whose gradient is not finite, if there is any."""
        norms = ((n, self.first.get(n, 0.0), self.last.get(n, 0.0)) for n in (*self.shapes, *self.last))
        return next((name for name, *pair in norms if not np.isfinite(pair).all()), None)

    @property
    def sizes(self) -> dict[str, int]:
        return {name: int(np.prod(shape)) for name, shape in self.shapes.items()}

    @property
    def dead(self) -> list[str]:
        """Parameters whose gradient was exactly 0 at every step."""
        return [n for n, size in self.sizes.items() if self.largest.get(n, 0.0) == 0.0 and size]

    @property
    def total(self) -> float:
        """Norm of the whole gradient at the first step."""
        return float(np.sqrt(sum(v * v for v in self.first.values())))

    @property
    def groups(self) -> dict[str, float]:
        """Norm of the larger of first and last gradient by block, or module outside of blocks."""
        return {
            group: float(np.sqrt(sum(max(self.first[n], self.last[n]) ** 2 for n in members)))
            for group, members in depth_groups(self.last).items()
        }

    def holds_matrix(self, group: str) -> bool:
        """Whether the group has a matrix; one without (a lone norm or bias) may well have tiny gradients."""
        return any(name.startswith(group) for name in self.matrices)

    def record(self, norms: dict[str, float], units: dict[str, np.ndarray]) -> None:
        """Take in one step's gradients."""
        self.last = norms
        self.first = self.first or norms
        for name, value in norms.items():
            self.largest[name] = max(self.largest.get(name, 0.0), value)
        for name, on in units.items():
            self.alive[name] = self.alive.get(name, False) | on


@measurement
def followed(bench: Bench) -> Followed:
    """Train a few steps by our own means, so that only model and initialisation are judged."""
    model = bench.model()
    found = Followed(
        # A mask or a table in a public attribute counts as a parameter, but nobody means it to learn.
        {
            name: a.shape
            for name, a in by_path(model.trainable_parameters()).items()
            if mx.issubdtype(a.dtype, mx.floating) and not is_pattern(a)
        },
        [name for name, a in by_path(model.parameters()).items() if a.ndim >= 2],
    )
    if not found.shapes:
        return found
    optimizer = AdamW(2e-3, bias_correction=True, weight_decay=0.0)
    model.train()
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    # one that starts as the identity looks like a mask
    linear = {name for name in linear if found.sizes.get(name)}
    rows = sample(bench)
    count = min(_ROWS, rows.shape[0])
    # Weights of 16 bits have a float32 master each: Adam's epsilon is 0 in float16, and a division by it infinite.
    masters = tree_map(lambda a: a.astype(mx.float32), model.trainable_parameters())
    for step in range(STEPS):
        batch = rows.rows(np.arange(step, step + count) % rows.shape[0])
        bench.seed_all(bench.seed + step)
        norms, units, masters = _step(bench, model, optimizer, batch, linear, masters)
        found.record(norms, units)
        if not np.isfinite(list(found.last.values())).all():
            break
    return found


def _step(bench: Bench, model: nn.Module, optimizer: AdamW, batch: HostBatch, linear: set[str], masters):
    tree = bench.slope(model, batch)
    with bench.calling("the gradient of model(tokens)"):
        flat = {n: g.astype(mx.float32) for n, g in by_path(tree).items() if isinstance(g, mx.array)}
        norms = {n: mx.linalg.norm(g) for n, g in flat.items()}
        units = {n: mx.abs(flat[n]).max(-1) > 0 for n in flat if n in linear}
        whole = tree_map(lambda g: g.astype(mx.float32), tree)
        kinds = tree_map(lambda a: a.dtype, model.trainable_parameters())
        masters = optimizer.apply_gradients(whole, masters)
        model.update(tree_map(lambda a, kind: a.astype(kind), masters, kinds))
        mx.eval(model.parameters(), optimizer.state, norms, units, masters)
    return {n: float(v) for n, v in norms.items()}, {n: np.array(on) for n, on in units.items()}, masters


@measurement
def silent_units(bench: Bench) -> dict[str, float]:
    """Share of the units that never receive a gradient, by weight of a linear layer that is not dead throughout;
    the output layer, whose units are tokens, is left out."""
    found = followed(bench)
    silent = found.dead  # in our own loss: a further head's may feed it all the same
    return {
        name: 1 - float(on.mean())
        for name, on in found.alive.items()
        if name not in silent and on.size >= _FEW_UNITS and found.shapes[name][0] != bench.subject.vocab_size
    }


def _few(bench: Bench) -> HostBatch:
    return sample(bench).rows(slice(0, _ROWS))


@measurement
def dead(bench: Bench) -> list[str]:
    """Parameters that receive no gradient from our own loss, from the subject's, nor from what its step passes on:
    further heads may have a loss of their own."""
    names = followed(bench).dead
    if not names or bench.minimises_ours:
        return names
    batch, model = _few(bench), bench.model()
    if bench.subject.loss is not None:
        fed = loss_gradient(bench, model, batch)[1]
    else:
        fed = watched_step(bench, model, bench.optimizer(), batch)[1]
    return [n for n in names if n not in fed or not float(mx.abs(fed[n]).max())]


@measurement
def tables(bench: Bench) -> list[str]:
    """The dead parameters that a formula fills: several numbers that are the same in another fresh model, whose
    matrices differ. MLX counts a table of positions among the weights."""
    names = dead(bench)
    if (
        not names
        or (fresh := random_arrays(bench)) is None
        or fresh.same.issuperset(followed(bench).matrices)
    ):
        return []
    arrays = by_path(bench.model().trainable_parameters())
    return [n for n in names if n in fresh.same and arrays[n].size > 1 and len(set(_range(arrays[n]))) > 1]


@measurement
def faint(bench: Bench) -> dict[str, float]:
    """Matrices whose largest gradient is no more than rounding, relative to the median over all matrices."""
    found = followed(bench)
    norms = {n: found.largest[n] for n in found.matrices if found.largest.get(n)}
    middle = float(np.median(list(norms.values()))) if norms else 0.0
    return {n: norm / middle for n, norm in norms.items()} if middle and np.isfinite(middle) else {}


@measurement
def even(bench: Bench) -> list[str]:
    """Matrices whose gradient has one size in all entries, as happens where rounding or a sign lets nothing through but
    the mean size that it is scaled by."""
    found = bench.gradients(bench.model(), _few(bench))
    sizes = {n: mx.abs(g.astype(mx.float32)) for n, g in found.items() if g.ndim >= 2 and g.size >= _MANY}
    return [n for n, size in sizes.items() if 0 < float(size.max()) < float(size.min()) * (1 + _EVEN)]


@measurement
def woken(bench: Bench) -> list[str]:
    """Those of the dead parameters that receive a gradient once there is noise on the weights."""
    awake = bench.gradients(bench.noisy(7), _few(bench))
    return [n for n in dead(bench) if n in awake and float(mx.abs(awake[n]).max()) > 0]


@dataclass(frozen=True)
class Constant:
    """Trainable matrices all of whose entries are one number: 0, or another."""

    zero: list[str]
    stuck: list[str]


@measurement
def constant_matrices(bench: Bench) -> Constant:
    """Matrices of the fresh model whose units would all compute and learn the same. A few rows or columns that are no
    layer's weight are left out: they may scale channels one by one, as the taps of a short convolution do. So is a
    number next to 0: it is a gate's start, as 0 is, for what its layer returns is the bias."""
    flat = [(n, a) for n, a in by_path(bench.model().trainable_parameters()).items() if a.ndim >= 2]
    widths = {n: a.shape[-1] for n, a in flat}
    ranges = {n: _range(a) for n, a in flat if min(a.shape) > 1}
    same = {n: low for n, (low, high) in ranges.items() if high - low == 0}
    taps = {n for n, a in flat if min(a.shape) <= _FEW_UNITS and n.rpartition(".")[2] != "weight"}
    stuck = [n for n, v in same.items() if abs(v) > _FAINT / widths[n] ** 0.5 and n not in taps]
    return Constant([n for n, v in same.items() if v == 0], stuck)


def _range(array: mx.array) -> tuple[float, float]:
    array = array.astype(mx.float32)
    return float(array.min()), float(array.max())


def depth_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Parameter paths by block (``layers.0``, ``layers.1`` ...) or, outside of blocks, by module."""
    groups: dict[str, list[str]] = {}
    for name in names:
        block = re.match(r"(.*?\.\d+)(\.|$)", name)
        groups.setdefault(block[1] if block else name.rpartition(".")[0] or name, []).append(name)
    return groups


def is_block(group: str) -> bool:
    """Whether a group of `depth_groups` is one of a stack of blocks."""
    return bool(re.search(r"\.\d+$", group))
