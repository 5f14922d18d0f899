"""Twins of faults of consistency: between calls, lengths, weights and what is computed from them."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.faults.fault import change, shape
from mlxstories.faults.judging import one_buffer
from mlxstories.faults.leaks import ByHand, after_block, each_attention, masked_by
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import clipped_gradients, stepping
from mlxstories.faults.recipe import Recipe, evaluate
from mlxstories.faults.twins.model import decode_anew
from mlxstories.faults.twins.twin import Twins

TWINS = Twins()


class ConstantOutOfSight(nn.Module):
    """Adds a constant vector that lies in an object which is no module."""

    class Holder:
        def __init__(self, dim: int):
            self.offset = 0.01 * mx.sin(mx.arange(dim))

    def __init__(self, dim: int):
        super().__init__()
        self._holder = self.Holder(dim)

    def __call__(self, x):
        return x + self._holder.offset


class PrivateMask(ByHand):
    """Keeps its mask in an attribute that MLX leaves out of the parameters."""

    def __init__(self, config):
        super().__init__(config)
        self._mask = mx.tri(config.context, dtype=mx.bool_)

    def mix(self, queries, keys, values):
        length, scale = queries.shape[2], 1 / math.sqrt(queries.shape[-1])
        mask = self._mask[:length, :length]
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


class AdditiveMask(ByHand):
    """Adds -1e9 to what may not be seen, and nothing to the rest."""

    def weights(self, scores, past):
        return mx.softmax(scores - 1e9 * (1 - past), axis=-1)


def step_by_hand(model, optimizer, batch, recipe):
    loss, gradients = clipped_gradients(model, batch, recipe)
    optimizer.update(model, gradients)
    return loss


def step_on_both_halves(model, optimizer, batch, recipe):
    """Accumulates over the halves of the batch, weighted by their tokens."""
    halves = [Batch(*part) for part in zip(*(mx.split(a, 2) for a in batch), strict=True)]
    shares = [half.mask.sum() / batch.mask.sum() for half in halves]
    parts = [clipped_gradients(model, half, recipe) for half in halves]
    gradients = tree_map(lambda one, two: shares[0] * one + shares[1] * two, *(g for _, g in parts))
    optimizer.update(model, gradients)
    return sum(share * loss for share, (loss, _) in zip(shares, parts, strict=True))


def evaluating_compiled(recipe: Recipe) -> Recipe:
    """Validation through a compiled forward pass that lists the model's state among its inputs."""

    class Compiled:
        def __init__(self, model):
            self.model = model
            self._forward = mx.compile(lambda tokens: model(tokens), inputs=[model.state])

        def eval(self):
            self.model.eval()

        def __call__(self, tokens):
            return self._forward(tokens)

    return change(evaluate=lambda model, batches: evaluate(Compiled(model), batches))(recipe)


def on_other_weights(model, batches):
    """Validates on scaled weights, as on an average of them, and puts the trained ones back."""
    trained = model.parameters()
    model.update(tree_map(lambda weight: 0.999 * weight, trained))
    try:
        return evaluate(model, batches)
    finally:
        model.update(trained)


TWINS.add(
    "not-repeatable", "dropout-of-0.1", "dropout of 0.1, which evaluation turns off", shape(dropout=0.1)
)
TWINS.add(
    "length-dependent", "learned-positions", "learned positions from the start", shape(positions="learned")
)
TWINS.add(
    "context-cut",
    "narrow-window",
    "each position attends to the 8 before it",
    masked_by(lambda ahead: (ahead <= 0) & (ahead > -8)),
    decode_anew,
)
TWINS.add(
    "hidden-parameters",
    "constant-out-of-sight",
    "a constant in an object that is no module, the same in every model",
    after_block(ConstantOutOfSight),
)
TWINS.add(
    "buffer-trained",
    "private-mask",
    "the mask lies in a private attribute, which is no parameter",
    rebuilt(lambda model, config: each_attention(model, config, PrivateMask)),
)
TWINS.add(
    "without-effect",
    "additive-mask",
    "-1e9 is added to the scores of what may not be seen",
    rebuilt(lambda model, config: each_attention(model, config, AdditiveMask)),
)
TWINS.add("gradient-mismatch", "step-by-hand", "an eager update, clipped by hand", stepping(step_by_hand))
TWINS.add(
    "rows-ignored",
    "both-halves-accumulated",
    "gradients of the two halves of a batch, weighted by their tokens",
    stepping(step_on_both_halves),
)
TWINS.add(
    "stale-computation",
    "validation-compiled",
    "validation runs compiled, with the model's state among the inputs",
    evaluating_compiled,
)
TWINS.add(
    "evaluation-changes-state",
    "validation-on-average",
    "validation takes other weights and puts the trained ones back",
    change(evaluate=on_other_weights),
)
TWINS.add(
    "evaluation-changes-state",
    "losses-cleared",
    "validation and the step add to one buffer, which validation clears",
    one_buffer(cleared=True),
)
