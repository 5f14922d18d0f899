"""Telling one story here and with mlx-lm, on the same weights and the same device."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlxstories.data.tokenizer import END
from mlxstories.export.model_types import model_type_of
from mlxstories.export.write import config_of
from mlxstories.generation.decoding import generate
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import size_config
from mlxstories.training.experiment import new_model
from mlxstories.trees import by_path

_VOCABULARY, _TOKENS, _TURNS = 4096, 128, 3


@dataclass(frozen=True)
class Comparison:
    """Tokens a second of one story, greedily, a model of size base; each the median of turns taken in alternation.

    Attributes:
        ours: of mlxstories.
        theirs: of mlx-lm.
    """

    ours: float
    theirs: float


def compare_speed() -> Comparison | None:
    """The duel, or None where mlx-lm is not installed."""
    if importlib.util.find_spec("mlx_lm") is None:
        return None
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    config = size_config("base", _VOCABULARY, context=256)
    model = new_model(config, 0)
    # random tied weights repeat their input, and END would end the story at once
    model.embed.weight[END] *= 0.1
    with tempfile.TemporaryDirectory() as name:
        folder, kind = Path(name), model_type_of(config)
        mx.save_safetensors(
            str(folder / "model.safetensors"), kind.export(by_path(model.parameters()), config)
        )
        (folder / "config.json").write_text(json.dumps(config_of(config)), encoding="utf-8")
        other, _ = load_model(folder)

    def ours() -> int:
        (story,) = generate(model, [[]], max_tokens=_TOKENS, sampling=SamplingConfig(temperature=0))
        return len(story.tokens)

    def theirs() -> int:
        return sum(1 for _ in generate_step(mx.array([0]), other, max_tokens=_TOKENS))

    rates: dict[Callable[[], int], list[float]] = {ours: [], theirs: []}
    for turn in range(_TURNS + 1):
        for tell, found in rates.items():
            began = time.perf_counter()
            tokens = tell()
            if turn:  # the first compiles
                found.append(tokens / (time.perf_counter() - began))
    return Comparison(statistics.median(rates[ours]), statistics.median(rates[theirs]))
