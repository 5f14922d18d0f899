"""What a training step costs, by counting, and the least time that it can take."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxstories.batch import Batch
from mlxstories.model import ModelConfig, parameter_count
from mlxstories.optim import build_optimizer
from mlxstories.optim.schedules import build_schedule
from mlxstories.training.experiment import planned_model
from mlxstories.training.losses import objective
from mlxstories.training.memory import kept_floats, require_for_training
from mlxstories.training.phases import PHASES, Phase
from mlxstories.training.step import TrainStep

_FLOAT = 4  # bytes
_FUSED_HEADS = (64, 72, 80, 96, 128, 192, 256)  # MLX 0.32, backend/metal/scaled_dot_product_attention.cpp


# Another view of the same memory; Reshape and Flatten copy where the order of the numbers changes, which is not known
# before they run.
_VIEWS = {"Broadcast", "CustomTransforms", "Depends", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze",
          "StopGradient", "Transpose", "Unflatten"}  # fmt: skip


@dataclass(frozen=True)
class Handed:
    """One update as the host hands it to the device. A GPU pays for each launch.

    Attributes:
        operations: in MLX's graph; those that one compiled kernel does count once.
        launches: of these, those that do more than look at the same memory in another way; a concatenation copies each
            of its inputs and counts once for each, and so does a padding.
        host_seconds: to build the graph again, the fastest of several times.
    """

    operations: int
    launches: int
    host_seconds: float


@dataclass(frozen=True)
class Cost:
    """One update with one microbatch, float32.

    Attributes:
        parameters: numbers that are trained.
        tokens: in the microbatch.
        flops: of all matrix products, forward and backward, of which attention is counted over the visible half.
        activation_bytes: what the forward pass keeps for the backward pass, the logits apart, which are made and
            used in chunks.
        moved_bytes: the least that goes to memory and back: weights read forward and backward; gradients written
            and read; weight and both moments read and written by AdamW; activations written and read.
        handed: for each number of a phase, what its update hands to the device.
        slow_shapes: what Metal has no fast kernel for, one clause each.
    """

    parameters: int
    tokens: int
    flops: int
    activation_bytes: int
    moved_bytes: int
    handed: dict[int, Handed]
    slow_shapes: tuple[str, ...]


def training_cost(config: ModelConfig, batch_size: int) -> Cost:
    """The cost of an update of phase 1 on ``batch_size`` rows of the whole context.

    Matrix products need 2 FLOPs a weight and token forward and twice that backward, attention 4 D a pair of positions
    and layer forward (Chowdhery et al. 2022, appendix B).

    Raises:
        StoriesError: no such update fits into this machine's memory.
    """
    dim, hidden, context = config.dim, config.hidden, config.context
    widening = 2 if config.feed_forward == "swiglu" else 1
    weights = config.layers * (4 * dim * dim + (widening + 1) * dim * hidden) + config.vocab_size * dim
    seen = context if config.arch == "encoder" else (context + 1) / 2
    tokens = batch_size * context
    steps = {number: step_of(config, PHASES[number]) for number in (1, 3)}
    require_for_training(steps[1].model, steps[1].optimizer.state, batch_size, mx.float32)
    parameters = parameter_count(steps[1].model)
    activations = _FLOAT * tokens * kept_floats(config)
    return Cost(
        parameters,
        tokens,
        round(3 * tokens * (2 * weights + config.layers * 4 * dim * seen)),
        activations,
        _FLOAT * parameters * (2 + 2 + 6) + 2 * activations,
        {number: handed(step, [full_rows(config, batch_size)]) for number, step in steps.items()},
        tuple(slow_on_metal(config)),
    )


def slow_on_metal(config: ModelConfig) -> Iterator[str]:
    """Shapes that are computed in several kernels where Metal has one."""
    if (width := config.dim // config.heads) not in _FUSED_HEADS:
        yield (
            f"heads of {width}: decoding has one kernel for attention with heads of "
            f"{', '.join(map(str, _FUSED_HEADS))} alone"
        )


def step_of(config: ModelConfig, phase: Phase) -> TrainStep:
    """The step of a phase, with a model whose weights are yet to be drawn."""
    own = phase.parts(config.arch)
    parts = {
        name: getattr(config, name) for name in own if getattr(config, name) != getattr(ModelConfig, name)
    }
    model = planned_model(dataclasses.replace(config, **{**own, **parts}), 0)
    rate = build_schedule(phase.schedule, phase.optimizer.learning_rate, 1000)
    return TrainStep(
        model, build_optimizer(phase.optimizer, rate), objective(config), clip_norm=phase.clip_norm
    )


def full_rows(config: ModelConfig, batch_size: int) -> Batch:
    """A batch of rows [batch_size, context] in which every token counts."""
    tokens = mx.zeros((batch_size, config.context), dtype=mx.int32)
    return Batch(tokens, tokens, mx.ones(tokens.shape))


def handed(step: TrainStep, batches: Sequence[Batch], rounds: int = 20) -> Handed:
    """What one update hands to the device, without computing it; ``step`` cannot be used afterwards."""
    mx.eval(step.model.state, step.optimizer.state, batches)  # or the graph would hold how they are made
    result = [part for part in step.prepare(batches, 0) if part is not None]
    operations = operations_of(step.model.state, step.optimizer.state, *result)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step.prepare(batches, 0)
        times.append(time.perf_counter() - began)
    return Handed(len(operations), sum(launches(operations).values()), min(times))


def operations_of(*results) -> list[tuple[str, int]]:
    """Kind and number of inputs of every operation that the arrays of some trees wait for."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *results)
    kinds = re.findall(r'(\d+) \[label ?= ?"(\w+)", shape=rectangle', graph.getvalue())
    inputs = Counter(re.findall(r'" -> (\d+)', graph.getvalue()))
    return [(kind, inputs[node]) for node, kind in kinds]


def launches(operations: Iterable[tuple[str, int]]) -> Counter[str]:
    """How many launches the operations of each kind are; see `Handed`."""
    counts: Counter[str] = Counter()
    for kind, inputs in operations:
        if kind not in _VIEWS:
            counts[kind] += inputs if kind in ("Concatenate", "Pad") else 1
    return counts


@dataclass(frozen=True)
class Machine:
    """What this machine was measured to do, float32.

    Attributes:
        flops: a second, in the product of two 1024 x 1024 matrices.
        bandwidth: bytes a second read and written, adding a number to 256 MiB.
    """

    flops: float
    bandwidth: float

    def seconds(self, cost: Cost) -> tuple[float, float]:
        """The least time of a step's arithmetic and of its memory traffic."""
        return cost.flops / self.flops, cost.moved_bytes / self.bandwidth


def measure(rounds: int = 7) -> Machine:
    """The fastest of several rounds."""
    matrix, vector = mx.random.normal((1024, 1024)), mx.zeros(1 << 26)
    return Machine(
        2 * 1024**3 / _fastest(lambda: matrix @ matrix, rounds),
        2 * vector.nbytes / _fastest(lambda: vector + 1, rounds),
    )


def _fastest(work: Callable[[], mx.array], rounds: int) -> float:
    mx.eval(work())
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        mx.eval(work())
        times.append(time.perf_counter() - began)
    return min(times)
