"""The model types there are, and which of them a model has."""

from __future__ import annotations

from mlxstories.errors import StoriesError
from mlxstories.export.gpt2 import GPT2
from mlxstories.export.llama import LLAMA, LLAMA_MIXING, QWEN3
from mlxstories.export.model_type import ModelType
from mlxstories.model import MlxLmConfig, ModelConfig

MODEL_TYPES = {kind.model_type: kind for kind in (LLAMA, QWEN3, GPT2, LLAMA_MIXING)}


def model_type_of(config: ModelConfig | MlxLmConfig) -> ModelType:
    """The model type of a model of ours.

    Raises:
        StoriesError: there is none; the message names the nearest and how to train it.
    """
    if isinstance(config, MlxLmConfig):
        raise StoriesError(
            f"a model of mlx-lm's architecture {config.architecture} is not exported; train one of our own, such as "
            "the default, which becomes a llama."
        )
    nearest = min(MODEL_TYPES.values(), key=lambda kind: len(kind.differences(config)))
    differences = nearest.differences(config)
    if not differences:
        if reason := nearest.refuses(config):
            raise StoriesError(f"the model has the parts of {nearest.model_type}, but {reason}.")
        return nearest
    own = ", ".join(f"{name} {getattr(config, name)}" for name in differences)
    options = " ".join(_option(name, value) for name, value in differences.items())
    raise StoriesError(
        f"mlx-lm has no counterpart of a model with {own}; the nearest is {nearest.model_type}: "
        f"train with {options}."
    )


def _option(name: str, value) -> str:
    """The option of `mlxstories train` that gives a part this value."""
    option = name.replace("_", "-")
    if name == "tied":
        return "--tied" if value else "--untied"
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{option}"
    return f"--{option} {value}"
