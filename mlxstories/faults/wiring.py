"""Faults of how a model and its loss are put together, and of what they do to weights on their way."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.faults.fault import Faults, change, minimising, shape
from mlxstories.faults.leaks import ByHand, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import mean_nats, stepping
from mlxstories.faults.recipe import Recipe
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import FeedForward

FAULTS = Faults("wiring")


def masked_softmax(scores, past):
    return mx.softmax(mx.where(past > 0, scores, -mx.inf), axis=-1)


class ScaleInverted(ByHand):
    """Multiplies scores by the root of the head's width, where they should be divided by it."""

    def mix(self, queries, keys, values):
        scores = queries @ keys.swapaxes(-1, -2) * math.sqrt(queries.shape[-1])
        return masked_softmax(8 * scores, mx.tri(scores.shape[-1])) @ values


class MaskOfFloat32(ByHand):
    """Adds a mask of float32 to scores of bfloat16."""

    def weights(self, scores, past):
        return mx.softmax(scores + mx.where(past > 0, 0.0, -1e9), axis=-1)


class SquaringNorm(nn.Module):
    """Divides by the reciprocal root of the mean square."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = mx.ones((dim,))

    def __call__(self, x):
        return self.weight * x / mx.rsqrt(x.square().mean(-1, keepdims=True) + 1e-5)


def squaring_norms(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.attention_norm, block.feed_forward_norm = SquaringNorm(config.dim), SquaringNorm(config.dim)


class Linear(FeedForward):
    """Forgets the activation."""

    def activated(self, *widened):
        return widened[0]


class Adapted(nn.Module):
    """A linear layer with a low-rank pair beside it."""

    def __init__(self, base: nn.Linear, rank: int = 4):
        super().__init__()
        self.base = base
        out, into = base.weight.shape
        self.lora_a = mx.random.normal((into, rank)) / into**0.5
        self.lora_b = mx.zeros((rank, out))

    def __call__(self, x):
        return self.base(x) + (x @ self.lora_a) @ self.lora_b


def adapted(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward.down = Adapted(block.feed_forward.down)


def head_of_the_embedding(model: Transformer, config: ModelConfig) -> None:
    model.head_projection.weight = model.embed.weight


def in_bfloat16(model: Transformer, config: ModelConfig) -> None:
    model.set_dtype(mx.bfloat16)


def one_id_lower(model: nn.Module, batch: Batch) -> mx.array:
    return mean_nats(model, batch._replace(targets=mx.maximum(batch.targets - 1, 0)))


def squared_errors(model: nn.Module, batch: Batch) -> mx.array:
    shares = mx.softmax(model(batch.inputs), axis=-1)
    wanted = mx.arange(shares.shape[-1]) == batch.targets[..., None]
    return ((shares - wanted).square().sum(-1) * batch.mask).sum() / batch.mask.sum()


def over_all_cells(model: nn.Module, batch: Batch) -> mx.array:
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, weights=batch.mask, reduction="mean")


FAULTS.add(
    "scores-multiplied",
    "extreme-scale",
    "attention scores are multiplied where they should be divided, and far too wide",
    rebuilt(lambda model, config: each_attention(model, config, ScaleInverted)),
)
FAULTS.add("norms-squaring", "extreme-scale", "norms divide by a reciprocal", rebuilt(squaring_norms))
FAULTS.add(
    "head-of-the-embedding",
    "tie-broken",
    "the output matrix is set to the embedding's, as PyTorch shares them",
    lambda recipe: rebuilt(head_of_the_embedding)(shape(tied=False)(recipe)),
)
FAULTS.add("dropout-of-0.9", "dropout-too-high", "dropout of 0.9, which was to be kept", shape(dropout=0.9))
FAULTS.add(
    "adapters-on-a-trained-base",
    "base-not-frozen",
    "low-rank pairs are attached, and the base is trained beside them",
    rebuilt(adapted),
    severity="warning",
)
FAULTS.add(
    "activation-forgotten",
    "missing-nonlinearity",
    "feed-forward layers without their activation",
    rebuilt(lambda model, config: [setattr(block, "feed_forward", Linear(config)) for block in model.blocks]),
    severity="warning",
)
FAULTS.add(
    "mask-of-float32",
    "precision-promoted",
    "a model of bfloat16 whose mask is float32",
    lambda recipe: rebuilt(in_bfloat16)(
        rebuilt(lambda model, config: each_attention(model, config, MaskOfFloat32))(recipe)
    ),
    severity="warning",
)
FAULTS.add(
    "targets-one-id-lower", "wrong-loss", "the loss takes 1 off every target", minimising(one_id_lower)
)
FAULTS.add("squared-errors", "wrong-loss", "squared errors of probabilities", minimising(squared_errors))
FAULTS.add(
    "divided-by-all-cells",
    "wrong-normalisation",
    "the loss is divided by all cells, padding too, as MLX's cross_entropy with weights does",
    minimising(over_all_cells),
)


# What the step does


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


def line_over(updates: int):
    """A plant of a rate that falls from 1e-3 to 0 over so many updates."""

    def build(phase, _):
        return optim.AdamW(optim.linear_schedule(1e-3, 0.0, updates), bias_correction=True)

    return lambda recipe: replace(stepping(plain_step)(recipe), build_optimizer=build)


def end_masked(batch: Batch) -> Batch:
    """The mask ends one cell early in rows that have room for padding."""
    following = mx.concatenate([batch.mask[:, 1:], mx.zeros_like(batch.mask[:, :1])], axis=1)
    return batch._replace(mask=batch.mask * following)


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
FAULTS.add("end-masked", "end-never-trained", "the mask ends one cell early", change(collate=end_masked))
