"""One optimiser update: gradients of one or more microbatches, clipping, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_map

from mlxstories.backend import kernels
from mlxstories.batch import Batch, shares
from mlxstories.distributed import ALONE, Group
from mlxstories.optim.clipping import clip_factor, global_norm, parameter_norms, scaled
from mlxstories.trees import by_path

Objective = Callable[..., tuple[mx.array, mx.array, mx.array, mx.array]]
"""``(model, batch, key, label_smoothing) -> (objective, tokens, hits, nats)``, sums over real tokens."""


class StepResult(NamedTuple):
    """What one update measured; scalars unless said otherwise, not yet evaluated.

    Attributes:
        nats: sum of the cross-entropy, without label smoothing.
        tokens: real tokens in the step's microbatches.
        hits: how many of them the model's argmax got right.
        grad_norm: norm of the whole gradient of the mean objective, before clipping.
        norms: float32 [P], the gradient norm of each parameter, in the order of ``TrainStep.names``; None where they
            were not asked for.
    """

    nats: mx.array
    tokens: mx.array
    hits: mx.array
    grad_norm: mx.array
    norms: mx.array | None


class TrainStep:
    """A compiled training step.

    The microbatches' gradients are summed over tokens and divided once by all their real tokens, so
    accumulation gives exactly the gradient of the large batch, however unequal the token counts are. So does
    sharing the rows of each microbatch among the processes of ``group``.

    With ``dtype`` bfloat16 the forward and backward passes are in it, on a copy of the weights; weights, sums of
    gradients, moments, norms and the loss stay float32 (Micikevicius et al. 2018, section 3.1).

    Attributes:
        gradient: sums over a microbatch of nats, tokens and hits, and the gradient of the sum of the minimised loss.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        objective: Objective,
        *,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        group: Group = ALONE,
        dtype: mx.Dtype = mx.float32,
    ):
        kernels.prepare()
        self.model = model
        self.optimizer = optimizer
        optimizer.init(model.trainable_parameters())
        self.names = list(by_path(model.trainable_parameters()))
        weights, moments = model.state, optimizer.state

        def total(batch: Batch, key: mx.array):
            masters = model.trainable_parameters()
            model.update(tree_map(lambda weight: weight.astype(dtype), masters))
            minimised, tokens, hits, nats = objective(model, batch, key, label_smoothing)
            model.update(masters)
            return minimised, (nats, tokens, hits)

        differentiate = nn.value_and_grad(model, total)
        parameters = sum(weight.size for weight in by_path(model.trainable_parameters()).values())

        # value_and_grad leaves traced arrays in the model, so the weights are an output here too
        @partial(mx.compile, inputs=[weights, mx.random.state], outputs=[weights, mx.random.state])
        def gradient(batch: Batch, key: mx.array):
            parts = []
            for part, stream in shares(batch, parameters):
                with mx.stream(stream):
                    key, own = mx.random.split(key)
                    (_, measured), gradients = differentiate(part, own)
                    parts.append((measured, gradients))
            return reduce(partial(tree_map, mx.add), parts)

        @mx.compile
        def add(left, right):
            return tree_map(mx.add, left, right)

        @partial(mx.compile, inputs=[weights, moments], outputs=[weights, moments])
        def update(gradients, tokens: mx.array, each: bool):
            norms = parameter_norms(gradients) / tokens if each else None
            norm = global_norm(gradients, tokens)
            factor = 1 / tokens if clip_norm is None else clip_factor(norm, clip_norm) / tokens
            # stacked, or each element of a gradient would compute the factor in its fused kernel
            (factor,) = mx.stack([factor])
            optimizer.update(model, scaled(gradients, factor))
            return norm, norms

        self.gradient, self._add, self._update, self._sum = gradient, add, update, group.sum

    def __call__(self, batches: Sequence[Batch], seed: int, *, norms: bool = False) -> StepResult:
        """Update the model from ``batches``; all randomness of the step (dropout, masking) is a function
        of ``seed`` alone, so a resumed run repeats it without any saved generator state. With ``norms`` each
        parameter's is taken too, which changes no other number and is further launches on a GPU."""
        result = self.prepare(batches, seed, norms=norms)
        mx.async_eval(self.model.state, self.optimizer.state, result)
        return result

    def prepare(self, batches: Sequence[Batch], seed: int, *, norms: bool = False) -> StepResult:
        """The update as a graph that has not been computed yet."""
        mx.random.seed(seed)
        sums = None
        for index, batch in enumerate(batches):
            part = self.gradient(batch, mx.random.key(seed + (index << 48)))
            sums = part if sums is None else self._add(sums, part)
        (nats, tokens, hits), gradients = self._sum(sums)
        norm, each = self._update(gradients, mx.maximum(tokens, 1.0), norms)
        return StepResult(nats, tokens, hits, norm, each)
