"""Validation scores every real token once, on however many streams."""

import itertools

import mlx.core as mx
import numpy as np
import pytest

from mlxstories import batch as batch_module
from mlxstories.backend import kernels
from mlxstories.data.dataset import Floor
from mlxstories.data.packing import Documents
from mlxstories.data.source import KINDS
from mlxstories.model import ModelConfig, Transformer
from mlxstories.training.evaluation import ROWS, Evaluator


def stories(number, vocab, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 30, number)
    tokens = rng.integers(5, vocab, lengths.sum()).astype(np.int32)
    return Documents(tokens, np.concatenate([[0], lengths.cumsum()]))


def test_loss_and_accuracy_are_those_of_each_story_read_alone_in_all_and_by_kind():
    """Against one story a row and NumPy in float64; kinds, floors and ceilings drawn at random for every target."""
    mx.random.seed(3)
    model = Transformer(ModelConfig(vocab_size=12, dim=16, layers=1, heads=2, context=40, separator=0))
    documents = stories(50, 12)
    nats, hits = [], []
    for start, end in itertools.pairwise(documents.offsets):
        story = documents.tokens[start:end].tolist()
        logits = np.array(model(mx.array([[0, *story]])), dtype=np.float64)[0]
        targets = np.array([*story, 0])
        nats.append(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(targets)), targets])
        hits.append(logits.argmax(-1) == targets)
    nats, hits = np.concatenate(nats), np.concatenate(hits)
    draw = np.random.default_rng(1)
    entropy, best = draw.random((2, len(nats))).astype(np.float32)
    kind = draw.integers(0, len(KINDS) - 1, len(nats))  # the last kind does not occur
    found = Evaluator(model)(documents, Floor(0.5, 0.5, {}, entropy, best, kind))
    assert found.tokens == len(nats)
    assert found.loss == pytest.approx(nats.mean(), rel=1e-5)
    assert found.accuracy == pytest.approx(hits.mean(), abs=1e-9)
    assert list(found.by_kind) == list(KINDS[:-1])
    for index, name in enumerate(KINDS[:-1]):
        chosen = kind == index
        assert found.by_kind[name] == {
            "tokens": chosen.sum(),
            "loss": pytest.approx(nats[chosen].mean(), rel=1e-5),
            "floor": pytest.approx(entropy[chosen].mean(), rel=1e-5),
            "accuracy": pytest.approx(hits[chosen].mean(), abs=1e-9),
            "ceiling": pytest.approx(best[chosen].mean(), rel=1e-5),
        }


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
