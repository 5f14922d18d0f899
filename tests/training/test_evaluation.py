"""Validation scores every real token once, on however many streams."""

import mlx.core as mx
import numpy as np
import pytest

from mlxstories import batch as batch_module
from mlxstories.backend import kernels
from mlxstories.data.packing import Documents
from mlxstories.model import ModelConfig, Transformer
from mlxstories.training.evaluation import ROWS, Evaluator


def stories(number, vocab, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 30, number)
    tokens = rng.integers(5, vocab, lengths.sum()).astype(np.int32)
    return Documents(tokens, np.concatenate([[0], lengths.cumsum()]))


@pytest.mark.parametrize("arch", ["decoder", "encoder"])
def test_the_number_of_streams_does_not_change_the_scores(monkeypatch, arch):
    config = ModelConfig(vocab_size=40, dim=16, layers=1, heads=2, context=16, separator=0, arch=arch)
    mx.random.seed(3)
    model, documents = Transformer(config), stories(90, 40)
    one = Evaluator(model)(documents)
    monkeypatch.setattr(batch_module, "SHARE", 1)
    monkeypatch.setattr(
        kernels, "streams", lambda: [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu),) * 3]
    )
    several = Evaluator(model)(documents)
    assert len(batch_module.shares(_rows_of(config), parameters=1)) == 4
    assert several.tokens == one.tokens
    assert several.accuracy == one.accuracy
    assert several.loss == pytest.approx(one.loss, rel=1e-6)
    if arch == "decoder":
        assert one.tokens == len(documents.tokens) + len(documents)


def _rows_of(config):
    tokens = mx.zeros((ROWS, config.context), mx.int32)
    return batch_module.Batch(tokens, tokens, mx.ones(tokens.shape))
