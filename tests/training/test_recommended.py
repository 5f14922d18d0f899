"""What is chosen for a text of one's own, what is warned of, and the estimate that leaves no trace."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.model import ModelConfig
from mlxstories.model.config import SIZES
from mlxstories.training import experiment
from mlxstories.training.advice import advice
from mlxstories.training.config import TrainingConfig
from mlxstories.training.estimate import estimate
from mlxstories.training.phases import PHASES, override
from mlxstories.training.recommended import ROWS, recommended


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig(stories=60, validation=12))


def shape(dataset, **parts):
    return ModelConfig(
        dataset.tokenizer.vocab_size, **{"dim": 32, "layers": 1, "heads": 2, "separator": 0} | parts
    )


@pytest.mark.parametrize(
    ("characters", "row"), [(1, 0), (54_000, 0), (56_000, 1), (190_000, 1), (210_000, 2), (10**6, 3)]
)
def test_the_row_nearest_by_ratio_is_taken(characters, row):
    text = "x" * characters
    assert recommended([text[: characters // 2], text[characters // 2 :]]).row is ROWS[row]


def test_what_is_seen_of_a_text():
    found = recommended(["Tom ran.", "Tom sat down.", "Tom saw a very old tree."])
    assert (found.characters, found.distinct, found.story) == (8 + 13 + 24, 10, 13)


def test_every_row_names_a_size_that_there_is():
    assert {row.size for row in ROWS} <= set(SIZES)
    assert [row.characters for row in ROWS] == sorted(row.characters for row in ROWS)


@pytest.mark.parametrize(
    ("rate", "optimizer", "words"),
    [
        (5.0, "muon", "--lr 5 is 250 times what muon usually takes (0.02)"),
        (0.02, "muon", None),
        (0.02, "adamw", None),
        (0.2, "adamw", "200 times"),
        (1e-6, "adamw", "1/1,000 of what adamw usually takes"),
    ],
)
def test_wild_rates_are_warned_of(dataset, rate, optimizer, words):
    phase = override(PHASES[1], {"optimizer.name": optimizer, "optimizer.learning_rate": rate})
    found = [s for s in advice(dataset, shape(dataset), 10_000, phase) if s.startswith("warning: --lr")]
    assert (len(found) == 1 and words in found[0]) if words else not found


def test_little_text_and_a_large_model_are_warned_of(dataset):
    said = list(advice(dataset, shape(dataset, dropout=0.8), 10**9, PHASES[1]))
    assert any("parameters are very many for" in s for s in said)
    assert any(s.startswith("warning: --dropout 0.8") for s in said)
    little = load_dataset(DataConfig(stories=5, validation=2))
    said = list(advice(little, shape(little), 10_000, PHASES[1]))
    assert any("very little text" in s for s in said) and any("held-out tokens" in s for s in said)
    assert not list(advice(dataset, shape(dataset), 10_000, PHASES[1]))


def test_an_estimate_leaves_no_trace(dataset, tmp_path):
    def trained(name, measured):
        training = TrainingConfig(steps=8, batch_size=2, evaluations=2)
        parts = (dataset, shape(dataset, dropout=0.1), PHASES[3], training, lambda record: None)
        trainer = experiment.start(tmp_path / name, *parts)
        if measured:
            found = estimate(trainer)
            assert 0 < found.shortest < found.longest and found.memory > 0 and found.disk > 0
        trainer.train()
        return dict(tree_flatten(trainer.model.parameters()))

    plain, after = trained("plain", False), trained("after", True)
    assert all(mx.array_equal(plain[name], after[name]) for name in plain)


def test_a_training_from_given_weights_begins_with_them_even_if_stopped_at_once(dataset, tmp_path):
    mx.random.seed(9)
    config = shape(dataset)
    given = experiment.new_model(config, 99).parameters()
    training = TrainingConfig(steps=4, batch_size=2)
    experiment.start(
        tmp_path / "run",
        dataset,
        config,
        PHASES[1],
        training,
        lambda record: None,
        weights=given,
        begun={"directory": "elsewhere"},
    )
    resumed = experiment.resume(experiment.Run(tmp_path / "run"), lambda record: None)
    here = dict(tree_flatten(resumed.model.parameters()))
    assert all(mx.array_equal(here[name], array) for name, array in tree_flatten(given))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["begun"] == {"directory": "elsewhere"}
    assert resumed.train() is not None
