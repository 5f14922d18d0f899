"""From a configuration to a model, ours or mlx-lm's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlxstories.model.config import ModelConfig, size_config
from mlxstories.model.decoder import Decoder
from mlxstories.model.mlx_lm import PREFIX, MlxLmConfig, MlxLmDecoder, MlxLmModel
from mlxstories.model.transformer import Transformer
from mlxstories.storage.serialize import from_dict


def build_model(config: ModelConfig | MlxLmConfig) -> Transformer | MlxLmModel:
    """A model with random weights from ``mx.random``."""
    return MlxLmModel(config) if isinstance(config, MlxLmConfig) else Transformer(config)


def decoder_of(model: Transformer | MlxLmModel) -> Decoder | MlxLmDecoder:
    """What continues rows by one token each: (tokens int32 [B], the model's cache) -> logits [B, V]."""
    return MlxLmDecoder(model) if isinstance(model, MlxLmModel) else Decoder(model)


def shaped(
    size: str, vocab_size: int, parts: Mapping[str, Any], ours: Mapping[str, Any]
) -> ModelConfig | MlxLmConfig:
    """The configuration of a named size with some parts; an ``arch`` of "mlx-lm:NAME" takes that architecture.

    Args:
        ours: parts that our own transformer has too, and mlx-lm's architectures have not.

    Raises:
        StoriesError: for an unknown size or architecture, or parts that do not go together.
    """
    arch = parts.get("arch", "decoder")
    if not arch.startswith(PREFIX):
        return size_config(size, vocab_size, **{**ours, **parts})
    own = {name: value for name, value in parts.items() if name != "arch"}
    return MlxLmConfig.of_size(arch.removeprefix(PREFIX), size, vocab_size, **own)


def read_config(values: Any, where: str) -> ModelConfig | MlxLmConfig:
    """The configuration of a model from its JSON values.

    Raises:
        StoriesError: the values are of neither kind; ``where`` is named in the message.
    """
    foreign = isinstance(values, dict) and "architecture" in values
    return from_dict(MlxLmConfig if foreign else ModelConfig, values, where)
