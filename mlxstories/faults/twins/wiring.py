"""Twins of faults of how a model, its loss and its step are put together."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.faults.fault import change, minimising, shape
from mlxstories.faults.leaks import ByHand, each_attention
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import mean_nats
from mlxstories.faults.recipe import Recipe
from mlxstories.faults.twins.model import decode_anew
from mlxstories.faults.twins.twin import Twins
from mlxstories.faults.updates import (
    compiled_step,
    falling_for,
    half_at,
    line_over,
    on_two_ranks,
    warmed_up_then,
)
from mlxstories.faults.wiring import DifferentiatedWhole, each_block, each_norm, in_bfloat16, masked_softmax
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.layers import Block

TWINS = Twins()


def summed_then_divided(recipe: Recipe) -> Recipe:
    summed = minimising(lambda model, batch: mean_nats(model, batch) * batch.mask.sum())(recipe)

    def step(model, optimizer, batch):
        value, slope = nn.value_and_grad(model, lambda model: summed.loss(model, batch))(model)
        tokens = batch.mask.sum()
        optimizer.update(model, tree_map(lambda array: array / tokens, slope))
        mx.eval(model.parameters(), optimizer.state)
        return value / tokens

    return replace(summed, make_step=lambda _: step)


class BetweenNorms(Block):
    """A second norm behind each branch, before it is added (Ding et al. 2021)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.behind_attention, self.behind_feed_forward = (nn.RMSNorm(config.dim) for _ in range(2))

    def __call__(self, x, mask, layer, cache):
        x = x + self.behind_attention(self.attention(self.attention_norm(x), mask, layer, cache))
        return x + self.behind_feed_forward(self.feed_forward(self.feed_forward_norm(x)))


class Cosines(ByHand):
    """Attention by cosines, times four."""

    def mix(self, queries, keys, values):
        queries, keys = (part / mx.linalg.norm(part, axis=-1, keepdims=True) for part in (queries, keys))
        return masked_softmax(4 * queries @ keys.swapaxes(-1, -2), mx.tri(keys.shape[-2])) @ values


class LowRank(nn.Module):
    """A linear layer of low rank, and nothing beside it."""

    def __init__(self, into: int, out: int, rank: int = 16):
        super().__init__()
        self.lora_a = mx.random.normal((into, rank)) / into**0.5
        self.lora_b = mx.zeros((rank, out))

    def __call__(self, x):
        return (x @ self.lora_a) @ self.lora_b


class ThroughNarrow(nn.Module):
    """Two linear layers through a narrow middle."""

    def __init__(self, dim: int):
        super().__init__()
        self.narrow, self.wide = nn.Linear(dim, dim // 2, bias=False), nn.Linear(dim // 2, dim, bias=False)

    def __call__(self, x):
        return self.wide(self.narrow(x))


def low_rank(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward.down = LowRank(config.hidden, config.dim)


def through_narrow(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.attention.out = ThroughNarrow(config.dim)


def with_z_loss(model: nn.Module, batch: Batch) -> mx.array:
    logits = model(batch.inputs)
    sizes = mx.logsumexp(logits.astype(mx.float32), axis=-1).square()
    return mean_nats(lambda _: logits, batch) + 1e-4 * (sizes * batch.mask).sum() / batch.mask.sum()


def openings_masked(batch: Batch) -> Batch:
    """The first eight tokens of each row are a prompt, and do not count."""
    return batch._replace(mask=batch.mask * (mx.arange(batch.mask.shape[1]) >= 8))


TWINS.add(
    "extreme-scale",
    "cosine-attention",
    "attention by cosines, times four",
    rebuilt(lambda model, config: each_attention(model, config, Cosines)),
    decode_anew,
)
TWINS.add(
    "residual-left-out",
    "between-two-norms",
    "each branch between two norms, and added",
    rebuilt(lambda model, config: each_block(model, BetweenNorms, config)),
)
TWINS.add(
    "backward-mismatch",
    "norms-by-hand",
    "norms with a backward pass of their own, whole",
    rebuilt(lambda model, config: each_norm(model, DifferentiatedWhole, config.dim)),
)
TWINS.add("tie-broken", "own-head", "an output matrix of its own", shape(tied=False))
TWINS.add("dropout-too-high", "dropout-of-0.3", "dropout of 0.3", shape(dropout=0.3))
TWINS.add(
    "base-not-frozen", "low-rank-layers", "layers of low rank, with nothing beside them", rebuilt(low_rank)
)
TWINS.add(
    "missing-nonlinearity",
    "through-a-narrow-middle",
    "attention's output goes through two linear layers with a narrow middle",
    rebuilt(through_narrow),
)
TWINS.add("precision-promoted", "bfloat16-throughout", "a model of bfloat16 throughout", rebuilt(in_bfloat16))
TWINS.add(
    "wrong-loss",
    "z-loss",
    "the squared log-partition is kept small (Chowdhery et al. 2022)",
    minimising(with_z_loss),
)
TWINS.add(
    "wrong-normalisation",
    "loss-halved",
    "the loss is halved, on every batch alike",
    minimising(lambda model, batch: 0.5 * mean_nats(model, batch)),
)
TWINS.add(
    "wrong-normalisation",
    "sum-divided-in-the-step",
    "the loss is a sum over tokens, and the step divides its gradient by their number",
    summed_then_divided,
)
TWINS.add("replicas-diverge", "clipped-on-both-ranks", "both ranks clip", on_two_ranks(clip_both=True))
TWINS.add(
    "frozen-randomness",
    "random-state-listed",
    "the compiled step lists the random state",
    compiled_step(listed=True),
)
TWINS.add(
    "update-below-precision", "bfloat16-at-3e-3", "weights of bfloat16 at a rate of 3e-3", half_at(3e-3)
)
TWINS.add(
    "schedule-out-of-step",
    "line-over-375",
    "the rate falls to 0 over three epochs, all that there are",
    lambda recipe: replace(line_over(375)(recipe), updates=375),
)
TWINS.add(
    "schedule-out-of-step",
    "line-to-the-end",
    "the rate falls along a line that nothing stops at 0, which it meets after the run's last update",
    falling_for(1.0),
)
TWINS.add(
    "schedule-out-of-step",
    "pieces-that-meet",
    "the rate warms up to 1e-3, and falls from there",
    warmed_up_then(1e-3),
)
TWINS.add(
    "end-never-trained",
    "prompts-masked",
    "the first eight tokens of each row do not count",
    change(collate=openings_masked),
)
