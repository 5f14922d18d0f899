"""What a model becomes outside: a model type that mlx-lm and Hugging Face transformers know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxstories.model import ModelConfig

Arrays = dict[str, mx.array]


@dataclass(frozen=True)
class ModelType:
    """A model type of mlx-lm and transformers, and how ours is written as one.

    Attributes:
        model_type: its name in ``config.json``, and the module ``mlx_lm.models.<model_type>``.
        architecture: the class of transformers.
        parts: fields of `ModelConfig` that it fixes, and their values; a tuple where there are several.
        refuses: of a model with these parts, why it does not fit all the same, or None.
        describe: its own fields of ``config.json``.
        export: our arrays by name to theirs; bit for bit, but for what they have and we leave out.
        native: theirs as mlx-lm holds them, matrices [out, in]; quantised weights are written so.
        restore: from theirs, in either form, to ours.
        read: their ``config.json`` to our configuration.
        code: the file of this folder that mlx-lm builds the model from, if it has no module for it; transformers
            cannot load such a model.
    """

    model_type: str
    architecture: str
    parts: Mapping[str, Any]
    refuses: Callable[[ModelConfig], str | None]
    describe: Callable[[ModelConfig], dict[str, Any]]
    export: Callable[[Arrays, ModelConfig], Arrays]
    native: Callable[[Arrays], Arrays]
    restore: Callable[[Arrays, ModelConfig], Arrays]
    read: Callable[[Mapping[str, Any]], ModelConfig]
    code: str | None = None

    def differences(self, config: ModelConfig) -> dict[str, Any]:
        """The fields in which a model differs from the type, with the value that the type has, the first of several."""
        allowed = {
            name: value if isinstance(value, tuple) else (value,) for name, value in self.parts.items()
        }
        return {name: values[0] for name, values in allowed.items() if getattr(config, name) not in values}
