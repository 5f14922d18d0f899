"""The least memory that training needs, known before anything is computed."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.backend import memory
from mlxstories.model import ModelConfig, Transformer, parameter_count
from mlxstories.training.evaluation import ROWS
from mlxstories.trees import by_path

_FLOAT = 4  # bytes


def kept_floats(config: ModelConfig, scores: bool = True) -> int:
    """Numbers that the forward pass keeps of a token for the backward pass, the logits apart.

    Args:
        scores: with those of attention, which fast kernels of a GPU compute twice instead.
    """
    widening = 2 if config.feed_forward == "swiglu" else 1
    attention = config.heads * config.context if scores else 0
    return config.layers * (8 * config.dim + attention + (widening + 1) * config.hidden) + 2 * config.dim


def require_for_training(model: Transformer, optimizer_state, rows: int, dtype: mx.Dtype) -> None:
    """Refuse a training on microbatches of ``rows`` rows that no memory here can hold; the weights may still be a plan.

    Counted are weights, gradients and the optimiser's state with what a microbatch keeps, or the logits of an
    evaluation, whichever is more.

    Raises:
        StoriesError: with what it needs, and what there is.
    """
    config = model.config
    weights = _FLOAT * parameter_count(model)
    moments = sum(getattr(value, "nbytes", 0) for value in by_path(optimizer_state).values())
    tokens = rows * config.context
    step = 20 * tokens  # inputs, targets and mask, and where they come from
    if isinstance(config, ModelConfig):
        on_cpu = mx.default_device().type == mx.cpu
        step += dtype.size * tokens * kept_floats(config, scores=on_cpu)
    else:
        step += _FLOAT * tokens * config.vocab_size
    evaluation = _FLOAT * ROWS * config.context * config.vocab_size
    memory.require(
        weights + moments + max(weights + step, evaluation),
        f"training {parameter_count(model):,} parameters on {rows:,} rows of {config.context:,} tokens",
        "take a smaller model, --context or --batch-size",
    )
