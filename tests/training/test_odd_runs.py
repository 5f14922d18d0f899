"""Run directories that somebody wrote into: every command that reads them says so in one line."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from mlxstories.cli import main

COMMANDS = {
    "sample": ["sample", "run", "--num", "1"],
    "report": ["report", "run"],
    "plot": ["plot", "run"],
    "export": ["export", "run", "--to", "out"],
    "resume": ["train", "--resume", "run"],
    "debug": ["debug", "run", "--rung", "data"],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    words = (
        "--stories 20 --validation 4 --size debug --dim 8 --heads 1 --steps 1 --no-check --name run --runs"
    )
    result = CliRunner().invoke(main, ["train", *words.split(), str(folder)])
    assert result.exit_code == 0, result.output
    (folder / "run" / "result.json").unlink()
    return folder / "run"


@pytest.fixture
def damaged(good, tmp_path, monkeypatch):
    """``damaged(command)``: what it says, and its exit code, of the run ``runs/run`` here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good, tmp_path / "runs" / "run")

    def said(command):
        result = CliRunner().invoke(main, COMMANDS[command])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert not (tmp_path / "out").exists() or result.exit_code == 0
        return result.exit_code, result.output

    return said


def change(**fields):
    with open("runs/run/config.json", encoding="utf-8") as file:
        config = json.load(file)
    for path, value in fields.items():
        inside = config
        *parts, name = path.split("__")
        for part in parts:
            inside = inside[part]
        inside[name] = value
    with open("runs/run/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [("report", "phase", 5), ("export", "phase", ["x"]), ("report", "data", "stories"),
     ("export", "data__source", {"a": 1}), ("plot", "data__source", [1]), ("sample", "model", []),
     ("report", "floor", "low"), ("resume", "seed", "x"), ("report", "versions", [1]), ("debug", "phase", 5)],
)  # fmt: skip
def test_a_field_of_another_type(damaged, command, field, value):
    change(**{field: value})
    code, output = damaged(command)
    assert code == 2 and f"{field.replace('__', '.')} must be" in output.splitlines()[-1]


@pytest.mark.parametrize("command", ["sample", "export", "resume", "debug"])
@pytest.mark.parametrize(("part", "most"), [("layers", "1,000"), ("context", "1,000,000")])
def test_a_model_of_ten_million_layers_or_tokens(damaged, command, part, most):
    change(**{f"model__{part}": 10_000_000})
    code, output = damaged(command)
    assert code == 2 and f"{part} must be a whole number from 1 to {most}" in output


def test_hours_of_one_update_are_not_resumed(damaged):
    change(phase__accumulation=10**8)
    code, output = damaged("resume")
    assert code == 2 and "accumulation must be a whole number from 1 to 10,000" in output


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("sample", "tokenizer.json"),
        ("report", "metrics.jsonl"),
        ("resume", "metrics.jsonl"),
        ("plot", "config.json"),
    ],
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(damaged, command, name):
    os.unlink(f"runs/run/{name}")
    os.mkfifo(f"runs/run/{name}")
    code, output = damaged(command)
    assert code == 2 and ("is no regular file" in output or "is not a run" in output)


def test_a_sparse_file_of_terabytes_is_no_configuration(damaged):
    with open("runs/run/config.json", "wb") as file:
        file.truncate(1 << 40)
    code, output = damaged("sample")
    assert code == 2 and "is larger than 128 MiB" in output


def test_a_pipe_in_a_checkpoint_is_not_waited_for(damaged):
    os.unlink("runs/run/checkpoints/step-1/model.safetensors")
    os.mkfifo("runs/run/checkpoints/step-1/model.safetensors")
    code, output = damaged("sample")
    assert code == 2 and "model.safetensors is no regular file" in output
