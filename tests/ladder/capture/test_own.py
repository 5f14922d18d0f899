"""Trainings of our own under watch: `debug -m mlxstories.cli -- train` says what `debug RUN` says, and makes no run."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.ladder import Subject, load_subject
from mlxstories.ladder.capture import CapturedScript, OwnTraining, definitions

SMALL = (
    *("train", "--stories", "60", "--validation", "8", "--size", "debug", "--dim", "16"),
    *("--steps", "2", "--no-check", "--name", "run"),
)


def verdict(tmp_path, *words):
    """The report of ``debug``, less what differs from call to call."""
    result = CliRunner().invoke(
        main,
        ["debug", "--rung", "minimal", "--json", str(tmp_path / "r.json"), *words],
        catch_exceptions=False,
    )
    report = json.loads((tmp_path / "r.json").read_text())
    for rung in report["rungs"]:
        rung.pop("seconds", None)
    return result, {key: value for key, value in report.items() if key != "seconds"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param((), None, marks=pytest.mark.long),
        pytest.param(("--set", "optimizer.betas=[0.99,0.9]"), "extreme-constants", marks=pytest.mark.long),
        pytest.param(("--set", "optimizer.eps=100"), "extreme-constants", marks=pytest.mark.long),
    ],
)
def test_the_verdict_is_that_of_the_run(tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, *options, "--runs", "runs"]
    watched, report = verdict(tmp_path, "-m", "mlxstories.cli", "--", *words)
    assert "trains by mlxstories itself" in watched.output and "no run is made" in watched.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.json"]
    assert [f["code"] for f in report["findings"] if f["severity"] == "error"] == ([code] if code else [])
    assert CliRunner().invoke(main, words).exit_code == 0
    of_run, other = verdict(tmp_path, "runs/run")
    assert report == other and watched.exit_code == of_run.exit_code == (1 if code else 0)


SCRIPT = """
from pathlib import Path
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.model import ModelConfig
from mlxstories.training.experiment import train

data = load_dataset(DataConfig(stories=60, validation=8))
shape = ModelConfig(vocab_size=data.tokenizer.vocab_size, context=64, layers=1, dim=16, heads=2, hidden=32)
train(Path("run"), data, shape)
"""


def test_a_script_that_calls_our_training_is_examined_as_it_is_and_needs_no_setup(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    subject = load_subject("train.py")
    assert isinstance(subject, Subject) and subject.name == "run" and not (tmp_path / "run").exists()
    with pytest.raises(OwnTraining) as raised:
        CapturedScript("train.py")
    assert isinstance(raised.value, StoriesError) and "\n" not in str(raised.value)
    assert definitions("train.py").shape.dim == 16 and not (tmp_path / "run").exists()
    result = CliRunner().invoke(main, ["debug", "train.py", "--write-subject", "setup.py"])
    assert (
        result.exit_code == 2 and not (tmp_path / "setup.py").exists() and "needs no setup" in result.output
    )
