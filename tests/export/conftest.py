"""Small runs with random weights, of every shape and tokenizer."""

from __future__ import annotations

from inspect import signature

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_map

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.runs import checkpoints
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import to_dict

TEXT = "Tom lost a red ball. “Where is it?” he said. Tom was sad. Mia found the ball, and Tom was happy."
SHAPES = {
    "llama": {},
    "llama untied": {"tied": False},
    "qwen3": {"qk_norm": True},
    "llama_mixing": {"qk_norm": True, "mixing": 4},
    "llama_mixing relu2": {"qk_norm": True, "mixing": 4, "feed_forward": "relu2"},
    "llama_mixing untied": {"tied": False, "mixing": 3},
    "gpt2": {"norm": "layer", "positions": "learned", "feed_forward": "gelu"},
}


OLD = "trust_remote_code" not in signature(mlx_lm.load).parameters  # before 0.32, the last for Python 3.10


def load(path):
    """mlx-lm's model and tokenizer; an old mlx-lm runs a model's own code unasked."""
    return mlx_lm.load(str(path), **({} if OLD else {"trust_remote_code": True}))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """``make_run(shape, kind, **parts) -> Run``; weights are far from their start, so that logits differ."""

    def make(shape="llama", kind="word", extra=None, **parts):
        path = tmp_path_factory.mktemp("runs") / "tale"
        tokenizer = Tokenizer.train(kind, [TEXT] * 2, 300)
        size = {"dim": 32, "layers": 2, "heads": 4, "context": 40, "separator": 0}
        config = ModelConfig(tokenizer.vocab_size, **{**size, **SHAPES.get(shape, {}), **parts})
        mx.random.seed(3)
        model = Transformer(config)
        moved = tree_map(lambda w: w + 0.2 * mx.random.normal(w.shape), model.parameters())
        model.update(moved)
        run = Run.create(path, {"model": to_dict(config), **(extra or {})}, tokenizer)
        optimizer = build_optimizer(OptimizerConfig())
        optimizer.init(model.trainable_parameters())
        checkpoints.save(run, model, optimizer, {"step": 7, "val_loss": 2.0})
        run.append({"step": 7, "split": "val", "loss": 2.0, "accuracy": 0.5, "tokens": 1234})
        return run

    return make
