"""Trainings that go wrong are repaired, healthy ones are left alone, and a killed one resumes repaired."""

import json
import os
import signal
import subprocess
import sys
import time

import mlx.core as mx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxstories.cli import main
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.distributed import Group
from mlxstories.errors import StoriesError
from mlxstories.model import MlxLmConfig, ModelConfig
from mlxstories.plots.curves import figures
from mlxstories.plots.runs import read_curves
from mlxstories.repair import GaveUp, train_and_repair
from mlxstories.repair.branches import Branches, Snapshot, Trial, _lowest
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import PHASES, override
from mlxstories.training.stream import Stream

STEPS = 100


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig(stories=80, validation=10))


def trainer_for(dataset, path, changes, **training):
    config = ModelConfig(
        vocab_size=dataset.tokenizer.vocab_size, dim=32, layers=1, heads=2, context=64, separator=0
    )
    phase = override(PHASES[1], {"optimizer.learning_rate": 1e-2} | changes)
    training = TrainingConfig(**({"batch_size": 4, "steps": STEPS, "evaluations": 2} | training))
    return experiment.start(path, dataset, config, phase, training, lambda record: None)


def weights(trainer):
    return dict(tree_flatten(trainer.model.parameters()))


def overflowing(batch):
    """A batch whose sum of losses is infinite."""
    return batch._replace(mask=batch.mask.at[0, 0].add(3e38))


@pytest.fixture(scope="module")
def healthy(dataset, tmp_path_factory):
    trainer = trainer_for(dataset, tmp_path_factory.mktemp("healthy") / "run", {})
    return trainer.train().loss, weights(trainer)


def test_a_healthy_run_is_the_same_to_the_bit(dataset, tmp_path, healthy):
    trainer = trainer_for(dataset, tmp_path / "run", {}, max_repairs=3)
    evaluation = train_and_repair(trainer, 3)
    assert trainer.repairs == [] and trainer.progress.extra_updates == 0
    assert evaluation.loss == healthy[0]
    assert all(bool((value == healthy[1][name]).all()) for name, value in weights(trainer).items())


@pytest.mark.parametrize(
    "rate, code",
    [
        pytest.param(1e-6, "learning-rate-too-small", marks=pytest.mark.long),
        (3.0, "learning-rate-too-large"),
    ],
)
def test_a_hopeless_rate_is_replaced_by_one_that_was_measured(dataset, tmp_path, healthy, rate, code):
    trainer = trainer_for(dataset, tmp_path / "run", {"optimizer.learning_rate": rate})
    told = []
    trainer.warn = told.append
    evaluation = train_and_repair(trainer, 3)
    (repair,) = trainer.repairs
    assert repair["code"] == code and 1e-3 < repair["changes"]["optimizer.learning_rate"][1] < 0.1
    assert evaluation.loss < 1.05 * healthy[0]  # of the best rate; a trial is not a run
    assert trainer.progress.step == STEPS and trainer.progress.extra_updates > 40
    assert any("repaired from step 0 on: optimizer.learning_rate" in finding.fix for finding in told)
    assert code in [
        finding["code"] for finding in json.loads((trainer.run.path / "findings.json").read_text())
    ]
    lines = trainer.run.metrics()
    assert [line["step"] for line in lines if line["split"] == "train"] == [
        10,
        20,
        30,
        40,
        43,
        50,
        60,
        70,
        80,
        86,
        90,
        100,
    ]
    assert [line["step"] for line in lines if line["split"] == "val"] == [0, 43, 86, 100]
    assert [line["code"] for line in lines if line["split"] == "repair"] == [code]
    drawn = figures(read_curves([trainer.run]))["loss"]
    assert any(f"repaired: {code}" in text.get_text() for axes in drawn.axes for text in axes.texts)


@pytest.mark.long
def test_with_the_rate_what_is_suspicious_is_set_right(dataset, tmp_path):
    suspicious = {"optimizer.bias_correction": False, "optimizer.betas": (0.9, 0.99999)}
    trainer = trainer_for(dataset, tmp_path / "run", {"optimizer.learning_rate": 1e-7} | suspicious)
    train_and_repair(trainer, 3)
    (repair,) = trainer.repairs
    assert repair["code"] == "learning-rate-too-small"
    assert set(repair["changes"]) == {"optimizer.learning_rate", *suspicious}


def test_a_microbatch_that_gives_no_finite_gradient_is_left_out(dataset, tmp_path, healthy, monkeypatch):
    real = Stream.__next__

    def broken(stream):
        place = (stream.epoch, stream.batch)
        batch = real(stream)
        return overflowing(batch) if place == (0, 33) else batch

    monkeypatch.setattr(Stream, "__next__", broken)
    trainer = trainer_for(dataset, tmp_path / "run", {})
    evaluation = train_and_repair(trainer, 3)
    (repair,) = trainer.repairs
    assert repair["code"] == "not-finite" and repair["skipped"] == [[0, 33]] and repair["changes"] == {}
    assert evaluation.loss < 1.02 * healthy[0]


def test_weights_of_another_scale_are_drawn_anew(dataset, tmp_path, healthy):
    trainer = trainer_for(dataset, tmp_path / "run", {})
    trainer.model.update(tree_map(lambda w: w * 40 if w.ndim == 2 else w, trainer.model.parameters()))
    evaluation = train_and_repair(trainer, 3)
    assert [repair["code"] for repair in trainer.repairs] == ["bad-initialization"]
    assert evaluation.loss == healthy[0]


@pytest.fixture(scope="module")
def learnt(healthy):
    """Weights that know something, of quite another scale than random ones."""
    return tree_unflatten(list(healthy[1].items()))


def begun(dataset, path, weights, rate):
    """A run from given weights."""
    shape = ModelConfig(dataset.tokenizer.vocab_size, dim=32, layers=1, heads=2, context=64, separator=0)
    phase = override(PHASES[1], {"optimizer.learning_rate": rate})
    training = TrainingConfig(batch_size=4, steps=STEPS, evaluations=2, save_every=10, max_repairs=3)
    origin = {"weights": weights, "begun": {"directory": "elsewhere"}}
    return experiment.start(path, dataset, shape, phase, training, lambda record: None, **origin)


@pytest.mark.long
def test_weights_that_were_given_are_gone_back_to_and_not_drawn_anew(dataset, tmp_path, learnt):
    trainer = begun(dataset, tmp_path / "run", learnt, 3.0)
    train_and_repair(trainer, 3)
    assert [repair["code"] for repair in trainer.repairs] == ["learning-rate-too-large"]
    (first,) = (line for line in trainer.run.metrics() if line["split"] == "val" and line["step"] == 0)
    assert first["loss"] < 5


def test_a_resumed_run_that_has_lost_the_weights_it_began_with_draws_none(dataset, tmp_path, learnt):
    trainer = begun(dataset, tmp_path / "run", learnt, 3.0)

    def stop(record):
        if record["step"] == 10 and record["split"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    trainer.report = stop
    assert trainer.train() is None
    again = experiment.resume(trainer.run, lambda record: None)
    train_and_repair(again, 3)
    assert again.repairs == []


@pytest.mark.long
def test_an_architecture_of_mlx_lm_is_repaired(dataset, tmp_path):
    shape = MlxLmConfig.of_size("llama", "debug", dataset.tokenizer.vocab_size, context=64, layers=1, dim=32)
    phase = override(PHASES[1], {"optimizer.learning_rate": 1e-7})
    training = TrainingConfig(batch_size=4, steps=STEPS, evaluations=2, max_repairs=3)
    trainer = experiment.start(tmp_path / "run", dataset, shape, phase, training, lambda record: None)
    train_and_repair(trainer, 3)
    assert [repair["code"] for repair in trainer.repairs] == ["learning-rate-too-small"]


def test_a_run_that_nothing_helps_is_given_up(dataset, tmp_path, monkeypatch):
    real = Stream.__next__
    monkeypatch.setattr(Stream, "__next__", lambda stream: overflowing(real(stream)))
    trainer = trainer_for(dataset, tmp_path / "run", {})
    with pytest.raises(GaveUp, match="after 2 repairs"):
        train_and_repair(trainer, 2)


def test_several_processes_are_refused_before_anything_is_trained(dataset, tmp_path):
    class Two(Group):
        size = 2

    trainer = trainer_for(dataset, tmp_path / "run", {})
    trainer.group = Two()
    with pytest.raises(StoriesError, match="one process, not in 2"):
        train_and_repair(trainer, 3)
    assert trainer.run.metrics() == []


def test_a_trial_goes_on_where_it_stopped(dataset, tmp_path):
    trainer = trainer_for(dataset, tmp_path / "run", {}, steps=STEPS)
    branches, start = Branches(trainer), Snapshot.of(trainer)
    with branches.trials():
        whole = branches.losses(start, trainer.phase, 9)
        trial = Trial(start, trainer.phase)
        branches.extend(trial, 4)
        branches.extend(trial, 9)
    assert trial.losses.tolist() == whole.tolist()
    assert trial.at.progress.step == 9 and branches.spent == 18


@given(st.floats(-1.5, 1.5), st.floats(0.1, 10), st.floats(-5, 5))
def test_a_parabola_is_lowest_at_its_vertex_or_an_end(vertex, curvature, level):
    values = [level + curvature * (x - vertex) ** 2 for x in (-1, 0, 1)]
    assert _lowest(*values) == pytest.approx(min(1, max(-1, vertex)), abs=1e-6)
    assert _lowest(1.0, 2.0, 1.5) == -1 and _lowest(1.0, 2.0, 0.5) == 1
    assert _lowest(1.0, 0.5, float("inf")) == 0


def test_trials_leave_the_trainer_as_it_was(dataset, tmp_path):
    trainer = trainer_for(dataset, tmp_path / "run", {})
    before, optimizer = weights(trainer), trainer.optimizer
    branches = Branches(trainer)
    with branches.trials():
        losses = branches.losses(Snapshot.of(trainer), override(trainer.phase, {"clip_norm": None}), 5)
    assert losses[-1] < losses[0] and branches.spent == 5
    assert trainer.optimizer is optimizer and trainer.phase.clip_norm == 1.0
    assert (trainer.stream.epoch, trainer.stream.batch) == (0, 0)
    assert all(bool((value == before[name]).all()) for name, value in weights(trainer).items())


OPTIONS = ["train", "--stories", "40", "--validation", "5", "--size", "debug", "--dim", "32", "--heads", "2",
           "--context", "64", "--batch-size", "2", "--steps", "120", "--lr", "1e-6", "--no-check", "--repair",
           "--name", "run"]  # fmt: skip


@pytest.mark.long
def test_a_run_killed_after_its_repair_resumes_with_the_repaired_recipe(tmp_path):
    whole = CliRunner().invoke(main, [*OPTIONS, "--runs", str(tmp_path / "whole")])
    assert whole.exit_code == 0, whole.output
    assert "learning-rate-too-small" in whole.output and "repaired from step 0" in whole.output
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlxstories.cli", *OPTIONS, "--runs", str(cut)], stderr=subprocess.PIPE
    )
    metrics = cut / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and '"repair"' in metrics.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (cut / "run" / "result.json").exists()
    again = CliRunner().invoke(main, ["train", "--resume", str(cut / "run")])
    assert again.exit_code == 0, again.output
    results = [json.loads((tmp_path / part / "run" / "result.json").read_text()) for part in ("whole", "cut")]
    assert results[0]["loss"] == results[1]["loss"]
    assert results[0]["repairs"] == results[1]["repairs"] != []
    first, second = (
        mx.load(str(tmp_path / part / "run" / "checkpoints" / "step-120" / "model.safetensors"))
        for part in ("whole", "cut")
    )
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_giving_up_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    real = Stream.__next__
    monkeypatch.setattr(Stream, "__next__", lambda stream: overflowing(real(stream)))
    result = CliRunner().invoke(main, [*OPTIONS, "--max-repairs", "1", "--runs", str(tmp_path)])
    assert result.exit_code == 1
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Gave up: ") and "after 1 repair" in last and str(tmp_path / "run") in last


def test_no_repairs_at_all_is_bad_usage(tmp_path):
    bad = CliRunner().invoke(main, [*OPTIONS, "--max-repairs", "0", "--runs", str(tmp_path)])
    assert bad.exit_code == 2 and "--max-repairs" in bad.output and not (tmp_path / "run").exists()
