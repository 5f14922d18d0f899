"""Faults of what a step does to weights, and of what its batches and its schedule leave out."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_unflatten

from mlxstories.batch import Batch
from mlxstories.data.tokenizer import MASK
from mlxstories.faults.fault import Faults, change, minimising, shape
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import mean_nats, stepping
from mlxstories.faults.recipe import BATCH_SIZE, Recipe, padded_rows
from mlxstories.faults.wiring import in_bfloat16
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import clip_by_global_norm
from mlxstories.optim.build import is_hidden_matrix
from mlxstories.optim.muon import orthogonalize
from mlxstories.trees import by_path

FAULTS = Faults("updates")


class Half(nn.Module):
    """What one of two ranks holds of a feed-forward layer: half the units, and the whole norm."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.norm = nn.RMSNorm(config.dim)
        self.up = nn.Linear(config.dim, config.hidden // 2, bias=False)
        self.down = nn.Linear(config.hidden // 2, config.dim, bias=False)

    def __call__(self, x):
        return self.down(nn.gelu_approx(self.up(self.norm(x))))


class TwoRanks(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.ranks = [Half(config), Half(config)]

    def __call__(self, x):
        return sum(rank(x) for rank in self.ranks)


def on_two_ranks(clip_both: bool):
    """A plant of feed-forward layers on two ranks, whose copies of the norm receive the sum of both gradients."""

    def step(model, optimizer, batch, recipe):
        loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
        scale = mx.minimum(1.0, 0.3 / (optim.clip_grad_norm(gradients, 1e9)[1] + 1e-6))
        for block in gradients["blocks"]:
            first, second = block["feed_forward"]["ranks"]
            whole = first["norm"]["weight"] + second["norm"]["weight"]
            first["norm"]["weight"] = second["norm"]["weight"] = whole
        for block in gradients["blocks"]:
            ranks = block["feed_forward"]["ranks"]
            ranks[0] = tree_map(lambda g: scale * g, ranks[0])
            ranks[1] = tree_map(lambda g: scale * g, ranks[1]) if clip_both else ranks[1]
        optimizer.update(model, gradients)
        return loss

    def edit(model: Transformer, config: ModelConfig) -> None:
        for block in model.blocks:
            block.feed_forward = TwoRanks(config)

    return lambda recipe: stepping(step)(rebuilt(edit)(recipe))


def compiled_step(listed: bool):
    """A plant of a compiled step of a model with dropout, the random state among its inputs or not."""

    def make_step(recipe: Recipe):
        made: dict[tuple[int, int], tuple] = {}

        def build(model, optimizer):
            optimizer.init(model.trainable_parameters())
            state = [model.state, optimizer.state, *([mx.random.state] if listed else [])]

            def step(inputs, targets, mask):
                loss, gradients = nn.value_and_grad(model, recipe.loss)(model, Batch(inputs, targets, mask))
                optimizer.update(model, gradients)
                return loss

            return mx.compile(step, inputs=state, outputs=state)

        def step(model, optimizer, batch):
            key = id(model), id(optimizer)
            if key not in made:
                made[key] = model, optimizer, build(model, optimizer)
            return made[key][2](*batch)

        return step

    def with_dropout(recipe: Recipe) -> Recipe:
        return change(make_step=make_step)(change(build_model=Transformer)(shape(dropout=0.1)(recipe)))

    return with_dropout


def half_at(rate: float):
    """A plant of a model of bfloat16, trained by plain AdamW at this rate."""

    def plant(recipe: Recipe) -> Recipe:
        optimizer = change(build_optimizer=lambda phase, updates: optim.AdamW(rate, bias_correction=True))
        return stepping(plain_step)(optimizer(rebuilt(in_bfloat16)(recipe)))

    return plant


def plain_step(model, optimizer, batch, recipe):
    loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
    optimizer.update(model, gradients)
    return loss


def muon_clipped_late(model, optimizer, batch, recipe):
    """Hidden matrices take orthogonalised steps, all else AdamW's; what both are given is clipped."""
    loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
    flat = [(n, orthogonalize(g) if is_hidden_matrix(n, g) else g) for n, g in by_path(gradients).items()]
    optimizer.update(model, clip_by_global_norm(tree_unflatten(flat), 1.0)[0])
    return loss


def plain_muon(phase, updates):
    rest = optim.AdamW(2e-3, bias_correction=True)
    return optim.MultiOptimizer([optim.SGD(0.02, momentum=0.9), rest], [is_hidden_matrix])


def warmed_up_then(peak: float):
    """A plant of a rate that climbs to 1e-3 over 20 updates, and falls from ``peak`` after that."""

    def build(phase, _):
        ways = [optim.linear_schedule(5e-5, 1e-3, 20), optim.cosine_decay(peak, 2000)]
        return optim.AdamW(optim.join_schedules(ways, [20]), bias_correction=True)

    return lambda recipe: replace(stepping(plain_step)(recipe), build_optimizer=build)


def line_over(updates: int):
    """A plant of a rate that falls from 1e-3 to 0 over so many updates."""

    def build(phase, _):
        return optim.AdamW(optim.linear_schedule(1e-3, 0.0, updates), bias_correction=True)

    return lambda recipe: replace(stepping(plain_step)(recipe), build_optimizer=build)


def falling_for(share: float):
    """A plant of a rate that falls from 1e-3 along a line that meets 0 after this share of 500 updates."""

    def build(phase, updates):
        return optim.AdamW(lambda step: 1e-3 * (1 - step / (share * updates)), bias_correction=True)

    return lambda recipe: replace(stepping(plain_step)(recipe), build_optimizer=build, updates=500)


def by_fours(counted_in_batches: bool):
    """A plant of a step that updates at every fourth call, on a cosine over 1000 updates, or four times as many."""

    def make_step(recipe: Recipe):
        held: dict[int, tuple] = {}

        def step(model, optimizer, batch):
            loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
            _, count, before = held.get(id(optimizer), (optimizer, 0, None))
            total = gradients if before is None else tree_map(mx.add, before, gradients)
            if count == 3:
                optimizer.update(model, tree_map(lambda g: g / 4, total))
            held[id(optimizer)] = optimizer, (count + 1) % 4, None if count == 3 else total
            return loss

        return step

    def build(phase, updates):
        lasts = 4 * updates if counted_in_batches else updates
        return optim.AdamW(optim.cosine_decay(1e-2, lasts), bias_correction=True)

    return change(make_step=make_step, build_optimizer=build)


def end_masked(batch: Batch) -> Batch:
    """Padding has an id of its own, and the mask ends one cell early."""
    following = mx.concatenate([batch.mask[:, 1:], mx.zeros_like(batch.mask[:, :1])], axis=1)
    inputs, targets = (mx.where(batch.mask > 0, ids, MASK) for ids in (batch.inputs, batch.targets))
    return Batch(inputs, targets, batch.mask * following)


FAULTS.add(
    "clipped-on-one-rank",
    "replicas-diverge",
    "of two ranks that hold copies of a norm, one clips its gradients",
    on_two_ranks(clip_both=False),
)
FAULTS.add(
    "random-state-not-listed",
    "frozen-randomness",
    "a compiled step does not list the random state, and drops the same units for ever",
    compiled_step(listed=False),
)
FAULTS.add(
    "bfloat16-at-1e-5",
    "update-below-precision",
    "weights of bfloat16 at a rate of 1e-5",
    half_at(1e-5),
)
FAULTS.add(
    "schedule-over-40-updates",
    "schedule-out-of-step",
    "the rate falls to 0 within 40 updates, a third of an epoch",
    line_over(40),
)
FAULTS.add(
    "schedule-below-nought",
    "schedule-out-of-step",
    "the rate falls to 0 over half of the run, and on below it",
    falling_for(0.5),
)
FAULTS.add(
    "schedule-in-two-pieces",
    "schedule-out-of-step",
    "the rate warms up to 1e-3, and falls from 1e-4 after that",
    warmed_up_then(1e-4),
    severity="warning",
)
FAULTS.add(
    "schedule-in-batches",
    "schedule-out-of-step",
    "the rate falls over the run's batches, and four of them make an update",
    by_fours(counted_in_batches=True),
    severity="warning",
)
FAULTS.add(
    "end-masked",
    "end-never-trained",
    "the mask ends one cell early, before the end token",
    change(collate=end_masked),
)
FAULTS.add(
    "clipped-after-orthogonalising",
    "clipping-too-tight",
    "the limit on the gradient's norm divides Muon's orthogonalised steps (DeepSpeed issue 7713)",
    lambda recipe: stepping(muon_clipped_late)(change(build_optimizer=plain_muon)(recipe)),
    severity="warning",
)


@FAULTS.planted(
    "batch-without-target",
    "not-finite",
    "one batch of an epoch holds no target, and the loss is divided by their number",
)
def _(recipe: Recipe) -> Recipe:
    def arrange(documents, context, rng):
        rows = padded_rows(documents, context, rng)
        if rng is not None:
            rows.mask[BATCH_SIZE : 2 * BATCH_SIZE] = 0
        return rows

    return stepping(plain_step)(minimising(mean_nats)(replace(recipe, arrange=arrange)))
