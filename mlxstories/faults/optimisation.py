"""Faults of the optimisation: rates, schedules, clipping, decay, the update itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.faults.fault import Faults, change, minimising, optimizer, phase
from mlxstories.faults.recipe import Recipe
from mlxstories.ladder.own_training import scheduled_optimizer
from mlxstories.ladder.random_states import undisturbed
from mlxstories.optim import OptimizerConfig, ScheduleConfig, clip_by_global_norm
from mlxstories.training.losses import cross_entropy
from mlxstories.trees import by_path

FAULTS = Faults("optimisation")
_BEFORE = 1 << 40  # seed of the model built before; the ladder seeds its own with small numbers


def mean_nats(model: nn.Module, batch: Batch) -> mx.array:
    """Cross-entropy in nats per real token."""
    nats, tokens = cross_entropy(model(batch.inputs), batch.targets, batch.mask)
    return nats / tokens


def clipped_gradients(model, batch, recipe):
    """Loss and gradients as by hand, clipped as the phase says."""
    loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
    return loss, clip_by_global_norm(gradients, recipe.phase.clip_norm)[0]


def stepping(step: Callable) -> Callable[[Recipe], Recipe]:
    """A plant that makes the update by hand: (model, optimizer, batch, recipe) -> loss."""
    return change(make_step=lambda recipe: partial(step, recipe=recipe))


def step_with_clipped_values(model, optimizer, batch, recipe):
    loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
    optimizer.update(model, tree_map(lambda g: mx.clip(g, -1e-7, 1e-7), gradients))
    return loss


def rate(value: float):
    return optimizer(learning_rate=value)


def adam_without_correction(value: float, beta2: float):
    """MLX's own AdamW, which corrects no bias unless asked."""
    return change(
        build_optimizer=lambda phase, updates: mlx.optimizers.AdamW(
            value, betas=[0.9, beta2], weight_decay=0.0
        )
    )


# The learning rate

FAULTS.add("rate-1e-5", "learning-rate-too-small", "the learning rate is 1e-5", rate(1e-5))


@FAULTS.planted(
    "noam-at-3e-4",
    "learning-rate-too-small",
    "3e-4 times the transformer schedule, 8192 words: 0.002 % accuracy while the loss falls",
)
def _(recipe: Recipe) -> Recipe:
    config = replace(recipe.config, vocab_size=8192)
    noam = ScheduleConfig("noam", warmup=4000, dim=config.dim)
    return replace(phase(schedule=noam)(rate(3e-4)(recipe)), config=config)


FAULTS.add(
    "sgd-at-1e-3",
    "learning-rate-too-small",
    "plain SGD with the learning rate of Adam",
    phase(optimizer=OptimizerConfig("sgd", learning_rate=1e-3, momentum=0.0)),
)
FAULTS.add("rate-1", "learning-rate-too-large", "the learning rate is 1.0", rate(1.0))
FAULTS.add("rate-0.1", "learning-rate-too-large", "the learning rate is 0.1", rate(0.1))
FAULTS.add(
    "sgd-at-100",
    "learning-rate-too-large",
    "SGD with momentum at 100, unclipped",
    phase(optimizer=OptimizerConfig("sgd", learning_rate=100.0, momentum=0.9), clip_norm=None),
)
FAULTS.add(
    "lion-at-3e-2",
    "learning-rate-too-large",
    "Lion with a rate of 0.03, a hundred times its usual one",
    phase(optimizer=OptimizerConfig("lion", learning_rate=3e-2, betas=(0.9, 0.99))),
)
FAULTS.add(
    "warmup-100000",
    "warmup-too-long",
    "warmup over 100 000 updates in a run of 1 000",
    phase(schedule=ScheduleConfig("linear_warmup", warmup=100_000)),
)
FAULTS.add(
    "no-bias-correction",
    "no-bias-correction",
    "AdamW of MLX as it comes, betas 0.9 and 0.99999",
    adam_without_correction(1e-3, 0.99999),
)
FAULTS.add(
    "no-bias-correction-at-1e-2",
    "no-bias-correction",
    "AdamW of MLX as it comes, betas 0.9 and 0.9999, at 5e-3",
    adam_without_correction(5e-3, 0.9999),
)

# Clipping and decay

FAULTS.add(
    "clip-at-1e-6",
    "clipping-too-tight",
    "SGD with gradients clipped to 1e-6",
    phase(optimizer=OptimizerConfig("sgd", learning_rate=0.5, momentum=0.9), clip_norm=1e-6),
)
FAULTS.add(
    "clip-below-epsilon",
    "clipping-too-tight",
    "Adam's epsilon of 1e-4 over gradients clipped to 1e-6",
    lambda recipe: phase(clip_norm=1e-6)(optimizer(eps=1e-4)(recipe)),
)
FAULTS.add(
    "clip-each-value",
    "clipping-too-tight",
    "SGD with every gradient value clipped to 1e-7",
    lambda recipe: stepping(step_with_clipped_values)(
        phase(optimizer=OptimizerConfig("sgd", learning_rate=0.5, momentum=0.9))(recipe)
    ),
)
FAULTS.add(
    "weight-decay-100",
    "weight-decay-too-large",
    "a weight decay of 100: a tenth of every weight at each update",
    optimizer(weight_decay=100.0, decay="all"),
)


def decaying_step(model, optimizer, batch, recipe):
    loss, gradients = clipped_gradients(model, batch, recipe)
    model.update(tree_map(lambda weight: 0.9 * weight, model.trainable_parameters()))
    optimizer.update(model, gradients)
    return loss


def penalised(model, batch):
    squares = sum(weight.square().sum() for weight in by_path(model.parameters()).values())
    return mean_nats(model, batch) + 1.0 * squares


FAULTS.add(
    "decay-without-rate",
    "weight-decay-too-large",
    "a decay of 0.1 is applied at each update without the learning rate",
    stepping(decaying_step),
)
FAULTS.add(
    "l2-penalty-of-1",
    "weight-decay-too-large",
    "an L2 penalty of 1.0 stands in the loss",
    minimising(penalised),
)

# Constants of the optimiser

FAULTS.add(
    "betas-swapped",
    "extreme-constants",
    "Adam's two betas are given in the wrong order",
    optimizer(betas=(0.999, 0.9)),
)
FAULTS.add("epsilon-1", "extreme-constants", "an epsilon of 1, larger than any gradient", optimizer(eps=1.0))
FAULTS.add(
    "decay-negative",
    "extreme-constants",
    "the weight decay has the wrong sign: weights grow",
    change(
        build_optimizer=lambda phase, updates: mlx.optimizers.AdamW(
            1e-3, weight_decay=-20.0, bias_correction=True
        )
    ),
)


# The update


def step_without_update(model, optimizer, batch, recipe):
    loss, _ = clipped_gradients(model, batch, recipe)
    return loss


def step_on_copy(model, optimizer, batch, recipe):
    loss, gradients = clipped_gradients(model, batch, recipe)
    optimizer.apply_gradients(gradients, model.trainable_parameters())
    return loss


def step_uphill(model, optimizer, batch, recipe):
    loss, gradients = clipped_gradients(model, batch, recipe)
    optimizer.update(model, tree_map(mx.negative, gradients))
    return loss


def step_with_new_optimizer(model, optimizer, batch, recipe):
    loss, gradients = clipped_gradients(model, batch, recipe)
    optimizer = scheduled_optimizer(recipe.phase, recipe.updates)
    optimizer.update(model, gradients)
    return loss


FAULTS.add("update-forgotten", "no-update", "optimizer.update is never called", stepping(step_without_update))
FAULTS.add(
    "update-dropped", "no-update", "the result of apply_gradients is not put back", stepping(step_on_copy)
)
FAULTS.add(
    "rate-0",
    "no-update",
    "the schedule gives a rate of zero",
    change(build_optimizer=lambda phase, updates: mlx.optimizers.AdamW(0.0, bias_correction=True)),
)
FAULTS.add("gradients-negated", "loss-sign", "the gradients are negated", stepping(step_uphill))
FAULTS.add(
    "loss-negated",
    "loss-sign",
    "the log-likelihood is minimised",
    minimising(lambda model, batch: -mean_nats(model, batch)),
)
FAULTS.add(
    "optimizer-made-each-step",
    "state-not-kept",
    "each update makes an optimiser of its own",
    stepping(step_with_new_optimizer),
)


# The gradient on its way


def step_of_first_model(recipe: Recipe):
    """Steps whose gradients are those of a model that was built before."""
    with undisturbed():
        mx.random.seed(_BEFORE)
        first = recipe.build_model(recipe.config)
    gradient_of = nn.value_and_grad(first, lambda batch: recipe.loss(first, batch))

    def step(model, optimizer, batch):
        loss, gradients = gradient_of(batch)
        optimizer.update(model, clip_by_global_norm(gradients, recipe.phase.clip_norm)[0])
        return loss

    return step


FAULTS.add(
    "gradient-of-another-model",
    "gradient-mismatch",
    "the model was built again after the gradient function was made",
    change(make_step=step_of_first_model),
)


def step_on_first_half(model, optimizer, batch, recipe):
    half = len(batch.inputs) // 2
    loss, gradients = 0.0, None
    for _ in range(2):
        part = Batch(*(array[:half] for array in batch))  # taken before the loop, as it were
        nats, more = clipped_gradients(model, part, recipe)
        loss = loss + nats / 2
        gradients = more if gradients is None else tree_map(mx.add, gradients, more)
    optimizer.update(model, tree_map(lambda g: g / 2, gradients))
    return loss


FAULTS.add(
    "same-half-accumulated",
    "rows-ignored",
    "accumulation takes the same half of the batch twice",
    stepping(step_on_first_half),
)
