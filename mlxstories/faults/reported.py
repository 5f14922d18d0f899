"""Faults after public reports of which the kind was not thought of before."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxstories.batch import Batch
from mlxstories.faults.fault import Faults, change, minimising, shape
from mlxstories.faults.leaks import ByHand, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import clipped_gradients, mean_nats, stepping
from mlxstories.faults.recipe import evaluate
from mlxstories.faults.updates import line_over

FAULTS = Faults("reported")


class TurnedByHead(ByHand):
    """Turns queries and keys by the number of their head."""

    def __init__(self, config):
        super().__init__(config)
        self.rope = False

    def mix(self, queries, keys, values):
        by_head = [
            mx.fast.rope(x.swapaxes(1, 2), x.shape[-1], traditional=False, base=1e4, scale=1.0, offset=0)
            for x in (queries, keys)
        ]
        return super().mix(*(x.swapaxes(1, 2) for x in by_head), values)

    def weights(self, scores, past):
        return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class Backwards(optim.Optimizer):
    """Nesterov's momentum, its velocity added and not subtracted."""

    def __init__(self, rate: float = 0.05, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self._maybe_schedule("learning_rate", rate)

    def init_single(self, parameter, state):
        state["velocity"] = mx.zeros_like(parameter)

    def apply_single(self, gradient, parameter, state):
        state["velocity"] = self.momentum * state["velocity"] + gradient
        return parameter - self.learning_rate * (gradient - self.momentum * state["velocity"])


def step_counting_parts(model, optimizer, batch, recipe):
    """Advances the schedule once for each of four parts of the batch."""
    loss, gradients = clipped_gradients(model, batch, recipe)
    optimizer.state["step"] = optimizer.step + 3
    optimizer.update(model, gradients)
    return loss


def of_channels_first(model: nn.Module, batch: Batch) -> mx.array:
    """Reshapes logits [B, V, T], where they should be transposed."""
    logits = model(batch.inputs)
    return mean_nats(lambda _: logits.swapaxes(1, 2).reshape(logits.shape), batch)


def shifted_in_one_line(model: nn.Module, batch: Batch) -> mx.array:
    """Shifts targets that are shifted already, over the ends of rows."""
    nats = nn.losses.cross_entropy(
        model(batch.inputs).reshape(batch.targets.size, -1)[:-1], batch.targets.reshape(-1)[1:]
    )
    kept = batch.mask.reshape(-1)[1:]
    return (nats * kept).sum() / kept.sum()


def of_masked_cells(model: nn.Module, batch: Batch) -> mx.array:
    return mean_nats(model, batch._replace(mask=1 - batch.mask))


def with_perplexity_of_tokens(model, batches):
    batches = list(batches)
    model.eval()
    shares = tokens = 0.0
    for batch in batches:
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        shares += float((mx.exp(nats) * batch.mask).sum())
        tokens += float(batch.mask.sum())
    return evaluate(model, batches) | {"perplexity": shares / tokens}


def with_perplexity_of_two(model, batches):
    figures = evaluate(model, batches)
    return figures | {"perplexity": 2.0 ** figures["loss"]}


def with_another_head(model, batches):
    """The embedding in place of the output matrix, as a checkpoint of tied weights would load."""
    own = model.head_projection.weight
    model.head_projection.weight = model.embed.weight
    try:
        return evaluate(model, batches)
    finally:
        model.head_projection.weight = own


FAULTS.add(
    "rotations-by-head",
    "without-effect",
    "rotary positions turn by the number of the head, and cancel out",
    rebuilt(lambda model, config: each_attention(model, config, TurnedByHead)),
)
FAULTS.add(
    "logits-reshaped",
    "wrong-loss",
    "logits with channels first are reshaped to rows, and not transposed",
    minimising(of_channels_first),
)
FAULTS.add(
    "mask-turned-round",
    "wrong-loss",
    "the loss is that of the cells that do not count",
    minimising(of_masked_cells),
)
FAULTS.add(
    "shifted-in-one-line",
    "targets-mismatched",
    "rows are put in one line and shifted a second time",
    minimising(shifted_in_one_line),
)
FAULTS.add(
    "velocity-backwards",
    "loss-sign",
    "momentum is added to the weights where the gradient is subtracted",
    change(build_optimizer=lambda phase, updates: Backwards()),
)
FAULTS.add(
    "schedule-by-parts",
    "schedule-out-of-step",
    "the schedule advances with each of the four parts of which a step is made",
    lambda recipe: stepping(step_counting_parts)(line_over(500)(recipe)),
)
FAULTS.add(
    "perplexity-of-tokens",
    "metric-mismatch",
    "perplexity is the mean of the tokens' perplexities",
    change(evaluate=with_perplexity_of_tokens),
)
FAULTS.add(
    "perplexity-of-two",
    "metric-mismatch",
    "perplexity is 2 to the power of a loss in nats",
    change(evaluate=with_perplexity_of_two),
)
FAULTS.add(
    "another-head-in-validation",
    "metric-mismatch",
    "validation puts the embedding in for an output matrix that training does not tie to it",
    lambda recipe: change(evaluate=with_another_head)(shape(tied=False)(recipe)),
)
