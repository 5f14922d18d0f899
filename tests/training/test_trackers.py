"""Trackers: what TensorBoard reads back is what the run measured."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.runs.directory import Run
from mlxstories.runs.trackers import Trackers, scalars

SMALL = ["--stories", "20", "--validation", "4", "--size", "debug", "--no-check", "--name", "run"]


def read_back(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_back_every_measurement(tmp_path):
    pytest.importorskip("tensorboard")
    options = ["--steps", "4", "--log-every", "2", "--report-to", "tensorboard", "--runs", str(tmp_path)]
    result = CliRunner().invoke(main, ["train", *SMALL, *options])
    assert result.exit_code == 0, result.output
    expected: dict[str, list] = {}
    run = Run(tmp_path / "run")
    for record in run.metrics():
        for tag, value in scalars(record):
            expected.setdefault(tag, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    found = read_back(run.path / "tensorboard")
    assert found == expected
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    assert {"val/accuracy", "train/learning_rate", "block_grad_norms/blocks.0", "progress/tokens"} <= set(
        found
    )
    typed = ["mlxstories", "train", *SMALL, *options]
    assert run.config["command"] == " ".join(typed)


def test_what_a_resumed_run_measures_again_replaces_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    record = {"split": "val", "epoch": 0.5, "tokens": 10, "accuracy": 0.5}
    for first, value in ((0, 3.0), (2, 2.0)):
        trackers = Trackers(["tensorboard"])
        trackers.begin(run, first)
        heard = []
        report = trackers.after(heard.append)
        for step in range(first + 1, 5):
            report(record | {"step": step, "loss": value})
        trackers.close()
        assert [line["step"] for line in heard] == list(range(first + 1, 5))
    assert read_back(run.path / "tensorboard")["val/loss"] == [(1, 3.0), (2, 3.0), (3, 2.0), (4, 2.0)]


def test_what_a_repair_measures_again_replaces_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    trackers = Trackers(["tensorboard"])
    trackers.begin(run, 0)
    report = trackers.after(lambda record: None)
    for step, loss in ((1, 3.0), (2, 9.0), (3, 9.0), (2, 2.0), (3, 1.0)):
        report({"split": "val", "epoch": 0.5, "tokens": 10, "step": step, "loss": loss})
    trackers.close()
    assert read_back(run.path / "tensorboard")["val/loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "wandb is not installed: pip install wandb"),
        ("mlflow", "unknown tracker 'mlflow'"),
    ],
)
def test_what_is_missing_is_said_before_training(tmp_path, monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    options = ["--steps", "1", "--report-to", f"tensorboard,{name}", "--runs", str(tmp_path)]
    result = CliRunner().invoke(main, ["train", *SMALL, *options])
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("import a_package_that_wandb_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(StoriesError, match="is installed but does not load: No module named 'a_package"):
        Trackers(["wandb"])


def test_values_that_are_not_known_are_left_out():
    record = {
        "split": "train",
        "step": 1,
        "epoch": 0.1,
        "tokens": 5,
        "loss": None,
        "block_grad_norms": {"a": 1},
    }
    assert dict(scalars(json.loads(json.dumps(record)))) == {
        "progress/epoch": 0.1,
        "progress/tokens": 5.0,
        "block_grad_norms/a": 1.0,
    }
