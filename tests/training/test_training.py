"""The loop: it learns, it stops cleanly, and a resumed run is the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig
from mlxstories.runs import checkpoints
from mlxstories.storage import files
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.phases import PHASES, override
from mlxstories.training.progress import NotFinite, Progress, Window
from mlxstories.training.step import StepResult, TrainStep


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig(stories=60, validation=12))


def trainer_for(dataset, path, *, phase=PHASES[1], report=lambda record: None, dropout=0.0, **training):
    config = ModelConfig(
        vocab_size=dataset.tokenizer.vocab_size,
        dim=32,
        layers=2,
        heads=2,
        context=128,
        dropout=dropout,
        separator=0,
    )
    training = TrainingConfig(**({"batch_size": 4, "steps": 12, "log_every": 3, "evaluations": 2} | training))
    return experiment.start(path, dataset, config, phase, training, report)


def weights(trainer):
    return dict(tree_flatten(trainer.model.parameters()))


def untimed(records):
    return [{k: v for k, v in record.items() if k != "tokens_per_second"} for record in records]


def test_training_lowers_the_validation_loss_and_writes_the_run(dataset, tmp_path):
    phase = override(PHASES[1], {"optimizer.learning_rate": 1e-2})
    trainer = trainer_for(dataset, tmp_path / "run", phase=phase)
    evaluation = trainer.train()
    experiment.finish(trainer, evaluation)
    records = trainer.run.metrics()
    validation = [record for record in records if record["split"] == "val"]
    assert validation[0]["loss"] == pytest.approx(np.log(dataset.tokenizer.vocab_size), rel=0.05)
    assert validation[-1]["loss"] < validation[0]["loss"] - 0.5
    assert [record["step"] for record in validation] == [0, 6, 12]
    train = [record for record in records if record["split"] == "train"]
    assert train[-1]["tokens"] == trainer.progress.tokens > 0
    assert set(train[0]["block_grad_norms"]) == {"embed", "blocks.0", "blocks.1", "norm"}
    assert min(train[0]["block_grad_norms"].values()) > 1e-6
    result = json.loads((trainer.run.path / "result.json").read_text())
    assert result["loss"] == evaluation.loss
    assert len(result["samples"]) == 3


def test_a_run_written_before_a_field_was_renamed_is_read(dataset, tmp_path):
    run = trainer_for(dataset, tmp_path / "run", save_every=5).run
    path = run.file("config.json")
    path.write_text(path.read_text().replace('"save_every"', '"every"'))
    assert '"every": 5' in path.read_text()
    assert experiment.recipe_of(run)[3].save_every == 5


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(dataset, tmp_path, number):
    whole = trainer_for(dataset, tmp_path / "whole", phase=PHASES[number], dropout=0.1)
    whole.train()

    def stop_within_a_window(record):
        if record["step"] == 3 and record["split"] == "train":
            os.kill(os.getpid(), signal.SIGINT)

    first = trainer_for(
        dataset, tmp_path / "cut", phase=PHASES[number], dropout=0.1, report=stop_within_a_window
    )
    assert first.train() is None
    second = experiment.resume(first.run, lambda record: None)
    assert 0 < second.progress.step < 12
    assert second.train() is not None
    for name, value in weights(whole).items():
        assert bool((weights(second)[name] == value).all()), name
    assert untimed(second.run.metrics()) == untimed(whole.run.metrics())


@pytest.mark.parametrize(
    "words",
    [
        "[Compile::eval_cpu] Failed to compile function f: error code 2",
        "Could not load C++ shared library /tmp/mlx/f.so: cannot open shared object file: No such file or directory",
    ],
)
def test_a_stop_that_ends_the_compiler_of_a_step_is_an_interrupt(dataset, tmp_path, monkeypatch, words):
    class Uncompiled(TrainStep):
        def __call__(self, *args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError(words)

    monkeypatch.setattr("mlxstories.training.trainer.TrainStep", Uncompiled)
    with pytest.raises(KeyboardInterrupt):
        trainer_for(dataset, tmp_path / "run").train()


def test_a_stop_at_an_evaluation_is_no_end(dataset, tmp_path):
    def stop_before_six(record):
        if record["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = trainer_for(dataset, tmp_path / "run", log_every=5, report=stop_before_six)
    assert trainer.train() is None
    assert trainer.run.checkpoint("last").state["val_loss"] is not None
    assert experiment.resume(trainer.run, lambda record: None).progress.step == 6


def test_what_is_forced_to_the_disk_is_a_checkpoint_not_an_update(dataset, tmp_path, monkeypatch):
    forced = []
    for module in (files, checkpoints):
        monkeypatch.setattr(module, "sync", forced.append)
    counts = []
    for steps, save_every in ((2, None), (6, None), (6, 2)):
        forced.clear()
        trainer_for(
            dataset, tmp_path / f"{steps}-{save_every}", steps=steps, log_every=1, save_every=save_every
        ).train()
        counts.append(len(forced))
    few, many, saved = counts  # 26, 26, and 8 more for each of two checkpoints between
    assert 0 < few == many < saved <= many + 2 * 10
    assert many < 50


def test_a_finished_run_is_not_resumed(dataset, tmp_path):
    trainer = trainer_for(dataset, tmp_path / "run", steps=2)
    result = experiment.finish(trainer, trainer.train())
    with pytest.raises(StoriesError, match="nothing to resume"):
        experiment.resume(trainer.run, lambda record: None)
    (trainer.run.path / "result.json").unlink()  # killed between the last checkpoint and the result
    again = experiment.resume(trainer.run, lambda record: None)
    assert experiment.finish(again, again.train()) == result


def test_a_loss_that_is_not_finite_stops_and_names_step_and_parameter(dataset, tmp_path):
    phase = override(
        PHASES[1], {"optimizer.learning_rate": 1e36, "clip_norm": None, "schedule.name": "constant"}
    )
    trainer = trainer_for(dataset, tmp_path / "run", phase=phase)
    with pytest.raises(NotFinite, match=r"step \d+: the gradient of \S+ "):
        trainer.train()


def test_an_update_whose_norms_were_not_asked_for_is_named_by_its_number():
    window = Window(["weight"], Progress(step=2))
    for nats in (1.0, float("nan")):
        window.add(StepResult(*map(mx.array, (nats, 4.0, 1.0, 0.5)), norms=None))
    with pytest.raises(NotFinite, match=r"^step 2: loss or gradient is not finite\.$"):
        window.settle()


def test_the_parameters_whose_gradients_are_not_finite_are_counted():
    for bad, named in (([1.0, np.inf], "b"), ([np.nan, np.inf], "a and 1 more")):
        window = Window(["a", "b"], Progress(step=1))
        window.add(StepResult(*map(mx.array, (1.0, 4.0, 1.0, np.inf)), norms=mx.array(bad)))
        with pytest.raises(NotFinite, match=rf"^step 1: the gradient of {named} is not finite\.$"):
            window.settle()


def test_a_real_process_stopped_by_ctrl_c_tells_how_to_resume(tmp_path):
    command = [sys.executable, "-m", "mlxstories.cli", "train", "--stories", "40", "--validation", "5",
               "--size", "debug", "--epochs", "5000", "--runs", str(tmp_path), "--name", "run"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and '"train"' in metrics.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"mlxstories train --resume {tmp_path / 'run'}" in out
    assert "Traceback" not in err
    mx.load(str(next((tmp_path / "run" / "checkpoints").glob("step-*/model.safetensors"))))
