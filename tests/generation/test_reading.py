"""Reading a story: probabilities and entropies against numpy on the model's own logits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax

from mlxstories.generation.reading import read
from mlxstories.model import ModelConfig
from mlxstories.training.experiment import new_model


@pytest.fixture(scope="module")
def model():
    return new_model(ModelConfig(50, dim=32, layers=2, heads=2, context=16, dropout=0.5), seed=1)


def test_reading_is_the_softmax_of_the_logits_before_each_token(model):
    stories = [[7, 8, 9, 3, 0], [4], [5, 5, 5]]
    model.train()
    found = read(model, stories)
    assert model.training
    model.eval()
    for story, reading in zip(stories, found, strict=True):
        logits = np.array(model(mx.array([[0, *story[:-1]]]))[0], dtype=np.float64)
        logs = log_softmax(logits, axis=-1)
        np.testing.assert_array_equal(reading.tokens, story)
        np.testing.assert_allclose(np.log(reading.probability), logs[range(len(story)), story], atol=1e-5)
        np.testing.assert_allclose(reading.entropy, -(np.exp(logs) * logs).sum(axis=-1), atol=1e-5)
        np.testing.assert_array_equal(reading.likeliest, logits.argmax(axis=-1))


def test_banned_tokens_leave_the_entropy_finite(model):
    class Banned(type(model)):
        def __call__(self, tokens):
            return mx.where(mx.arange(50) < 25, -mx.inf, mx.zeros((*tokens.shape, 50)))

    banned = Banned(model.config)
    (reading,) = read(banned, [[30, 3]])
    np.testing.assert_allclose(reading.entropy, np.log(25), rtol=1e-6)
    np.testing.assert_allclose(reading.probability, [1 / 25, 0.0], rtol=1e-6)


def test_nothing_is_read_of_nothing(model):
    assert read(model, []) == []
