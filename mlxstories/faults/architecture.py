"""An architecture of mlx-lm as a subject: the built-in recipe with another model."""

from __future__ import annotations

import dataclasses

import mlx.core as mx

from mlxstories.faults.recipe import CONTEXT, healthy
from mlxstories.ladder.subject import Subject
from mlxstories.model import MlxLmConfig, build_model
from mlxstories.model.mlx_lm import PREFIX, MlxLmModel, logits_of
from mlxstories.training.losses import next_token_by_logits


def architecture(name: str, seed: int = 0) -> Subject:
    """The architecture ``name`` of mlx-lm, small and with random weights, on the built-in stories.

    Raises:
        StoriesError: mlx-lm has no such architecture, or cannot build it small.
    """
    recipe = healthy(seed)
    config = MlxLmConfig.of_size(name, "debug", recipe.config.vocab_size, CONTEXT)
    build_model(config)  # what it cannot build is bad input, not a finding
    changed = dataclasses.replace(
        recipe, config=config, build_model=build_model, objective=next_token_by_logits, generate=generate
    )
    return changed.subject(f"{PREFIX}{name}")


def generate(model: MlxLmModel, prompt: list[int], n: int) -> list[int]:
    """Greedy continuation through mlx-lm's own cache, as far as the context reaches."""
    from mlx_lm.models.cache import make_prompt_cache

    model.eval()
    cache, tokens, told = make_prompt_cache(model.model), mx.array([prompt]), []
    for _ in range(min(n, model.config.context - len(prompt))):
        logits = logits_of(model.model(tokens, cache=cache))
        tokens = mx.argmax(logits[:, -1], axis=-1, keepdims=True).astype(mx.int32)
        told.append(int(tokens.item()))
    return told
