"""Training ends where validation has stopped improving, and what is shown are the best weights."""

import json
import math
import os
import signal

import pytest
from mlx.utils import tree_flatten

from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig
from mlxstories.runs.checkpoints import load_model
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.evaluation import Evaluator
from mlxstories.training.phases import PHASES, override

PHASE = override(PHASES[1], {"optimizer.learning_rate": 2e-2, "schedule.name": "constant"})


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig(stories=6, validation=12))


def trainer_for(dataset, path, report=lambda record: None):
    """Six stories learnt by heart: soon every update makes the held-out ones worse."""
    shape = ModelConfig(dataset.tokenizer.vocab_size, dim=32, layers=2, heads=2, context=128, separator=0)
    training = TrainingConfig(steps=200, evaluations=100, log_every=2, stop_after=3)
    return experiment.start(path, dataset, shape, PHASE, training, report)


def validations(run):
    return [(r["step"], r["loss"]) for r in run.metrics() if r["split"] == "val"]


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    trainer = trainer_for(dataset, tmp_path_factory.mktemp("whole") / "run")
    trained = trainer.train()
    return trainer, trained, experiment.finish(trainer, trained)


def test_it_ends_three_validations_after_the_best(finished):
    measured = validations(finished[0].run)
    best = min(range(len(measured)), key=lambda index: measured[index][1])
    assert len(measured) - 1 == best + 3 and measured[-1][0] < 200


def test_figures_and_samples_are_of_the_best_weights(finished, dataset):
    trainer, trained, result = finished
    measured = dict(validations(trainer.run))
    assert result["loss"] == min(measured.values()) == measured[result["best_step"]]
    assert result["last"]["loss"] == trained.loss > result["loss"]
    model, _, _ = load_model(trainer.run, "best")
    assert Evaluator(model)(dataset.val).loss == result["loss"]
    told = experiment.tell(model, 3, seed=0, end=0)
    assert result["samples"] == [dataset.tokenizer.decode(story.tokens) for story in told]


def test_the_trainer_keeps_its_last_weights(finished):
    trainer, *_ = finished
    model, _, _ = load_model(trainer.run, "last")
    kept, saved = (dict(tree_flatten(m.parameters())) for m in (trainer.model, model))
    assert all((kept[name] == saved[name]).all().item() for name in saved)


def test_interrupted_while_it_waits_it_ends_where_it_would_have(finished, dataset, tmp_path):
    whole = validations(finished[0].run)
    before_last = whole[-2][0]

    def interrupt(record):
        if record["split"] == "val" and record["step"] == before_last:
            os.kill(os.getpid(), signal.SIGINT)

    cut = trainer_for(dataset, tmp_path / "cut", interrupt)
    assert cut.train() is None
    resumed = experiment.resume(cut.run, lambda record: None)
    experiment.finish(resumed, resumed.train())
    assert validations(cut.run) == whole
    with pytest.raises(StoriesError, match="nothing to resume"):
        experiment.resume(cut.run, lambda record: None)


def test_bits_a_character_count_the_characters_of_the_held_out_stories(finished, dataset):
    """By hand: all nats of the held-out stories over ln 2, for each of their characters."""
    trainer, _, result = finished
    nats = result["loss"] * result["tokens"]
    characters = len("".join(dataset.val_texts))
    assert result["bits_per_character"] == pytest.approx(nats / math.log(2) / characters)
    last = [r for r in trainer.run.metrics() if r["split"] == "val"][-1]
    assert last["bits_per_character"] == pytest.approx(
        last["loss"] * result["tokens"] / math.log(2) / characters
    )
    assert json.loads((trainer.run.path / "result.json").read_text()) == result
