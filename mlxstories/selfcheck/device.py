"""Whether this machine computes what it should: its device against the CPU, line by line, within a minute.

Where there is no GPU, the branches that one would take are examined on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxstories.backend import embedding, kernels
from mlxstories.batch import Batch
from mlxstories.model import ModelConfig, Transformer, decoder_of
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.optim.build import OPTIMIZERS
from mlxstories.optim.schedules import build_schedule
from mlxstories.selfcheck import resuming
from mlxstories.training.experiment import new_model
from mlxstories.training.losses import objective
from mlxstories.training.phases import PHASE_1, PHASE_3, PHASES, Phase
from mlxstories.training.step import TrainStep
from mlxstories.trees import by_path

# heads of 64, which Metal decodes fused
SHAPE = ModelConfig(97, dim=64, layers=2, heads=1, context=32, separator=0)
UPDATES = 50

Place = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Line:
    """One thing that was examined.

    Attributes:
        name: what was compared.
        error: how far apart the two were, relative unless the name says otherwise; NaN if an exception came instead.
        tolerance: the most that passes.
        reason: of a line that could not be computed.
    """

    name: str
    error: float
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Within its tolerance."""
        return self.error <= self.tolerance


def check() -> Iterator[Line]:
    """Every line, as soon as it is known."""
    bench = _Bench()
    coarse = 0.0
    for name, tolerance, measure in bench.lines():
        try:
            error, reason = float(measure()), ""
        except Exception as problem:  # a device may fail in any way, and the other lines still tell something
            error, reason = math.nan, f"{type(problem).__name__}: {problem}"
        if name == "matrix product":
            coarse = error if error > 1e-5 else 0.0  # TF32: everything made of products is as coarse
            yield Line(name, error, tolerance, reason)
        else:
            yield Line(name, error, tolerance and max(tolerance, 30 * coarse), reason)


def subject() -> str:
    """What `check` compares, in words."""
    gpu = "the GPU" if _has_gpu() else "a GPU's branches, on the CPU (there is no GPU)"
    return f"{gpu}, against the CPU"


def _has_gpu() -> bool:
    return mx.default_device().type == mx.gpu


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Operations one by one: a CPU's compiled ones need a C++ compiler and take it seconds each."""
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()


@contextmanager
def _cpu() -> Iterator[None]:
    """What the device is measured by."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        with _uncompiled():
            yield
    finally:
        mx.set_default_device(before)


@contextmanager
def _device() -> Iterator[None]:
    """The device as training uses it; without a GPU its branches, not compiled."""
    with kernels.as_on_gpu(), nullcontext() if _has_gpu() else _uncompiled():
        yield


@contextmanager
def _eager() -> Iterator[None]:
    """The device, not compiled."""
    with kernels.as_on_gpu(), _uncompiled():
        yield


class _Bench:
    """What the lines share: one batch, one set of weights for each phase."""

    def lines(self) -> Iterator[tuple[str, float, Callable[[], float]]]:
        """Name, tolerance, and what measures the error."""
        yield "matrix product", 1e-2, _product
        yield "loss", 1e-5, lambda: _relative(self._gradients(_device)[0], self._gradients(_cpu)[0])
        yield "gradients", 1e-4, lambda: _worst(self._gradients(_device)[1], self._gradients(_cpu)[1])
        yield "gradients in bfloat16", 0.1, self._bfloat16
        yield "gradient of an embedding, large", 1e-5, lambda: _relative(_lookup(_device), _lookup(_cpu))
        for name in OPTIMIZERS:
            # Newton-Schulz magnifies the rounding of small singular values up to 485 times
            yield f"one update of {name}", 1e-3 if name == "muon" else 1e-5, partial(self._optimizer, name)
        for number, phase in PHASES.items():
            yield f"one update of phase {number}", 2e-2, partial(self._side_by_side, phase, 1)
        for number in (1, 3):
            yield (
                f"{UPDATES} updates of phase {number}",
                1e-2,
                partial(self._side_by_side, PHASES[number], UPDATES),
            )
        yield "compiled against eager", 1e-4, self._compiled
        yield "decoding against the CPU", 1e-4, lambda: _relative(self._decoded(_device), self._decoded(_cpu))
        yield "decoding with against without a cache", 1e-4, self._cached
        yield "numbers that differ when updates are repeated", 0, self._repeated
        yield "numbers that differ after a kill and a resume", 0, resuming.numbers_that_differ

    @cached_property
    def batch(self) -> Batch:
        draw = np.random.default_rng(0)
        rows = draw.integers(0, SHAPE.vocab_size, (8, SHAPE.context + 1))
        for column in range(1, rows.shape[1]):  # mostly a rule, so that there is something to learn
            follows = draw.random(len(rows)) < 0.9
            rows[:, column] = np.where(
                follows, (5 * rows[:, column - 1] + 3) % SHAPE.vocab_size, rows[:, column]
            )
        inputs, targets = (mx.array(part, mx.int32) for part in (rows[:, :-1], rows[:, 1:]))
        return Batch(inputs, targets, mx.ones(inputs.shape))

    def _train(self, place: Place, phase: Phase, updates: int) -> tuple[mx.array, dict[str, mx.array]]:
        """The loss of each update [updates], and the weights after the last."""
        model = _model(phase)
        with place():
            rate = build_schedule(phase.schedule, phase.optimizer.learning_rate, UPDATES)
            step = TrainStep(
                model,
                build_optimizer(phase.optimizer, rate),
                objective(SHAPE),
                label_smoothing=phase.label_smoothing,
                clip_norm=phase.clip_norm,
            )
            results = [step([self.batch] * phase.accumulation, seed) for seed in range(updates)]
            losses = mx.stack([result.nats / result.tokens for result in results])
            mx.eval(losses, model.parameters())
        return losses, _flat(model.parameters())

    def _side_by_side(self, phase: Phase, updates: int) -> float:
        (ours, weights), (losses, wanted) = (self._train(place, phase, updates) for place in (_device, _cpu))
        if updates == 1:
            # Adam's first is the gradient's sign, which rounding may turn where there is almost none
            start = _flat(_model(phase).parameters())
            return _worst(*({name: part[name] - start[name] for name in start} for part in (weights, wanted)))
        return mx.max(mx.abs(ours - losses) / losses).item() if losses[-1] < losses[0] else math.inf

    def _gradients(self, place: Place, dtype: mx.Dtype = mx.float32):
        model, key = _model(PHASE_3), mx.random.key(0)
        model.set_dtype(dtype)
        with place():
            total = nn.value_and_grad(model, lambda: objective(SHAPE)(model, self.batch, key)[0])
            loss, gradients = total()
            mx.eval(loss, gradients)
        return loss, _flat(tree_map(lambda g: g.astype(mx.float32), gradients))

    def _bfloat16(self) -> float:
        return _worst(self._gradients(_device, mx.bfloat16)[1], self._gradients(_cpu)[1])

    def _optimizer(self, name: str) -> float:
        weights = _model(PHASE_1).parameters()
        draw = np.random.default_rng(0)
        gradients = tree_map(lambda w: mx.array(draw.standard_normal(w.shape), mx.float32), weights)
        found = []
        for place in (_device, _cpu):
            with place():
                optimizer = build_optimizer(OptimizerConfig(name, weight_decay=0.1))
                found.append(_flat(optimizer.apply_gradients(gradients, weights)))
                mx.eval(found[-1])
        return _worst(*found)

    def _compiled(self) -> float:
        return _worst(self._train(kernels.as_on_gpu, PHASE_3, 3)[1], self._train(_eager, PHASE_3, 3)[1])

    def _decoded(self, place: Place) -> mx.array:
        """Logits [B, T, V] of a row fed token by token after its first four."""
        model, tokens = _model(PHASE_3), self.batch.inputs
        with place():
            cache, decoder = model.new_cache(len(tokens)), decoder_of(model)
            logits = [model(tokens[:, :4], cache)]
            logits += [decoder(tokens[:, t], cache)[:, None] for t in range(4, tokens.shape[1])]
            return _computed(mx.concatenate(logits, axis=1))

    def _cached(self) -> float:
        with _device():
            whole = _computed(_model(PHASE_3)(self.batch.inputs))
        return _relative(self._decoded(_device), whole)

    def _repeated(self) -> float:
        (losses, weights), (again, repeated) = (self._train(_device, PHASE_3, 10) for _ in range(2))
        pairs = [(losses, again), *((weights[name], repeated[name]) for name in weights)]
        pairs.append((_lookup(_device), _lookup(_device)))
        return sum(mx.sum(a != b).item() for a, b in pairs)


def _model(phase: Phase) -> Transformer:
    """The same weights for every place: they are drawn on the CPU."""
    with _cpu():
        return new_model(replace(SHAPE, **phase.parts()), 0)


def _product() -> float:
    """The worst entry of a product, relative to the root mean square of all."""
    left, right = np.random.default_rng(0).standard_normal((2, 512, 512)).astype(np.float32)
    exact = left.astype(np.float64) @ right
    return np.abs(np.array(mx.array(left) @ mx.array(right)) - exact).max() / np.sqrt(np.mean(exact**2))


def _lookup(place: Place) -> mx.array:
    """The gradient of an embedding [8192, 32] by 2048 tokens: too large for a one-hot product."""
    draw = np.random.default_rng(0)
    tokens = mx.array(np.minimum(draw.zipf(1.3, 2048), 8192) - 1)
    weights = mx.array(draw.standard_normal((2048, 32)), mx.float32)
    table = mx.zeros((8192, 32))
    with place():

        def total(table):
            return (weights * embedding.repeatable(table[tokens], table, tokens)).sum()

        return _computed(mx.grad(total)(table))


def _computed(array: mx.array) -> mx.array:
    mx.eval(array)
    return array


def _flat(tree) -> dict[str, mx.array]:
    return by_path(tree)


def _relative(got: mx.array, wanted: mx.array) -> float:
    return (mx.linalg.norm(got - wanted) / mx.linalg.norm(wanted)).item()


def _worst(got: dict[str, mx.array], wanted: dict[str, mx.array]) -> float:
    return max(_relative(got[name], wanted[name]) for name in wanted)
