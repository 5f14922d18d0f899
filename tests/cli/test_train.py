"""`mlxstories train`: options reach the run, and bad input is one line and exit code 2."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.train import _run
from mlxstories.training.phases import RECORD

SMALL = ["--stories", "20", "--validation", "4", "--size", "debug", "--steps", "1", "--no-check"]


def train(tmp_path, *options):
    return CliRunner().invoke(main, ["train", *SMALL, "--runs", str(tmp_path), "--name", "run", *options])


def test_a_phase_and_its_overrides_reach_the_run(tmp_path):
    result = train(tmp_path, "--phase", "3", "--lr", "0.002", "--set", "optimizer.momentum=0.9")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["qk_norm"] is True
    assert config["phase"]["name"] == "phase 3"
    assert config["phase"]["optimizer"]["learning_rate"] == 0.002
    assert config["phase"]["optimizer"]["momentum"] == 0.9
    assert re.search(r"The loss is [\d.]+% above the floor", result.output)


def test_without_options_it_is_the_record_which_the_docs_spell_out(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "speedrun.md").read_text("utf-8")
    by_hand = re.search(r"^mlxstories train (--phase 3 .*)$", page, re.MULTILINE)[1]
    length = f" --epochs {RECORD['epochs']}"
    assert f"--stories {RECORD['stories']}{length}" in by_hand
    by_hand = by_hand.replace(length, "").split()  # which --steps replaces
    few = ["--stories", "20", "--validation", "4", "--steps", "1", "--no-check", "--runs", str(tmp_path)]
    recipes = []
    for name, options in (("record", []), ("hand", by_hand)):
        result = CliRunner().invoke(main, ["train", *options, *few, "--name", name])
        assert result.exit_code == 0, result.output
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["model"]["mixing"] == 4 and config["model"]["feed_forward"] == "relu2"
        for part in ("mixing", "feed_forward"):  # whose options leave the phase as it is
            config["phase"].pop(part)
        recipes.append((config["phase"].pop("name"), config["model"], config["phase"]))
    assert [recipe[0] for recipe in recipes] == ["speedrun", "phase 3"]
    assert recipes[0][1:] == recipes[1][1:]


def test_a_terminal_gets_its_cursor_back_whatever_ends_a_training():
    """A second Ctrl-C is none of the endings that are told; a live display hides the cursor until it is stopped."""
    ended = []
    show = SimpleNamespace(begin=lambda trainer: None, end=lambda: ended.append(True), finding=None)

    def interrupted():
        raise KeyboardInterrupt

    trainer = SimpleNamespace(config=SimpleNamespace(max_repairs=0), train=interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(trainer, show, check=False)
    assert ended == [True]


def test_a_run_is_called_after_its_recipe(tmp_path):
    recipes = (
        (("--seed", "1"), "speedrun-"),
        (("--phase", "1"), "phase1-debug-"),
        (("--lr", "1e-3"), "phase1-debug-"),
    )
    for options, start in recipes:
        runs = tmp_path / "".join(options)
        result = CliRunner().invoke(main, ["train", *SMALL, "--runs", str(runs), *options])
        assert result.exit_code == 0, result.output
        (config,) = runs.glob("*/config.json")
        assert config.parent.name.startswith(start), config


@pytest.mark.long
def test_a_resumed_run_says_what_it_ignores_and_a_finished_one_only_that_it_has_finished(tmp_path):
    run = tmp_path / "run"
    assert train(tmp_path).exit_code == 0
    resume = ["train", "--resume", str(run), "--epochs", "3", "--no-check"]
    again = CliRunner().invoke(main, resume)
    assert again.exit_code == 2 and f"--from {run} begins a new run" in " ".join(again.output.split())
    assert "goes on" not in again.output
    (run / "result.json").unlink()  # as if killed before it was written
    again = CliRunner().invoke(main, resume)
    assert again.exit_code == 0 and "note: ignored with --resume: --epochs. " in again.output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--heads", "7"], "7 heads for a width of 128"),
        (["--dim", "30"], "width of 30"),
        (["--dim", "12", "--heads", "4"], "12 / 4"),
        (["--positions", "sinusoidal", "--dim", "7", "--heads", "1"], "an even dim"),
        (["--size", "debug", "--heads", "7"], "7 heads for a width of 64"),
        (["--arch", "encoder", "--mixing", "2"], "take mixing 1"),
        (["--arch", "mlx-lm:qwen3", "--dim", "7"], "dim / heads"),
        (["--arch", "mlx-lm:qwen3", "--norm", "rms"], "leave out --norm"),
        (["--steps", "3", "--warmup", "3", "--schedule", "warmup_cosine"], "leave no update of the 3"),
    ],
)
@pytest.mark.parametrize("source", ["stories", "tales"])
def test_sizes_that_do_not_fit_are_refused_before_anything_is_read_or_said(
    tmp_path, monkeypatch, source, options, named
):
    def read(*_, **__):
        raise AssertionError("it was read first")

    (tmp_path / "tales").mkdir()
    (tmp_path / "tales" / "a.txt").write_text("Tom ran home.")
    monkeypatch.setattr("mlxstories.data.dataset.load_dataset", read)
    monkeypatch.setattr("mlxstories.data.texts.read_texts", read)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["train", "--data", source, *options])
    named = named.replace("of 128", "of 256") if source == "tales" else named
    assert result.exit_code == 2 and named in result.output, result.output
    assert [line[:7] for line in result.output.splitlines()] == ["Error: "]


def test_sizes_that_do_not_fit_what_was_chosen_are_refused_before_anything_is_said(tmp_path):
    """The size is known once the text is read: 256 heads go with no smaller one than base."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"Tom saw {i} red birds." for i in range(30)))
    result = CliRunner().invoke(
        main, ["train", "--data", str(tmp_path / "a.txt"), "--heads", "128", "--runs", str(tmp_path / "runs")]
    )
    assert result.exit_code == 2 and "128 heads for a width of 64" in result.output
    assert "red birds" not in result.output and "characters to train on" not in result.output


def test_an_encoder_trains_on_masked_tokens(tmp_path):
    result = train(tmp_path, "--arch", "encoder")
    assert result.exit_code == 0, result.output
    told = CliRunner().invoke(main, ["sample", str(tmp_path / "run")])
    assert told.exit_code == 2 and "encoder" in told.output


@pytest.mark.parametrize(
    "options, named",
    [
        (["--data", "no/such/file"], "no/such/file"),
        (["--stories", "-3"], "-3"),
        (["--heads", "7"], "--heads must divide dim; got 7 heads"),
        (["--lr", "-1"], "--lr must be a number above 0"),
        (["--set", "optimizer.learning_rate=-1"], "Error: learning_rate must be a number above 0"),
        (["--warmup=5", "--schedule", "constant"], "--warmup has no effect with the schedule constant"),
        (["--across-stories", "--layout", "padded"], "--across-stories has no effect with --layout padded"),
        (["--patience", "3"], "--patience is for several processes"),
        (["--set", "nonsense=1"], "nonsense"),
        (["--set", "nonsense"], "FIELD=VALUE"),
        (["--steps", "0"], "steps"),
        (["--epochs", "3"], "--epochs and --steps"),
        (["--resume", "nosuch"], "nosuch"),
        (["--resume", "x" * 300], "File name too long"),
        (["--data", "x" * 300], "does not exist"),
        (["--name", "../run"], "cannot be a run's name"),
        (["--name", ""], "it is empty"),
        (["--keep", "0"], "keep"),
        (["--every", "0"], "every"),
        (["--resume", ""], "it is empty"),
        (["--data", ""], "it is empty"),
        (["--runs", ""], "it is empty"),
        (["--batch-size", str(2**63 - 1)], "is not in the range"),
        (["--batch-size", "10000000"], "10,000,000 rows of 256 tokens takes at least 35,448.1 GiB"),
        (["--context", "10000000"], "context must be a whole number from 1 to 1,000,000"),
        (["--context", "1000000"], "1,000,000 tokens takes at least"),
        (["--layers", "10000000"], "layers must be a whole number from 1 to 1,000"),
        (["--arch", "mlx-lm:qwen3", "--layers", "10000000"], "layers must be a whole number from 1 to 1,000"),
        (["--accumulation", "100000000"], "accumulation must be a whole number from 1 to 10,000"),
        (["--evaluations", "1" + "0" * 400], "is not in the range"),
        (["--patience", "nan"], "nan is not in the range"),
        (["--set", "optimizer.learning_rate=" + "9" * 5000], "learning_rate must be a number"),
        (["--set", "name=" + "[" * 50_000], "name must be a text of at most 100 characters"),
        (["--vocab-size", "1" + "0" * 30], "--vocab-size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, options, named):
    result = train(tmp_path, *options)
    assert result.exit_code == 2
    assert named in result.output and "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_taken_is_refused_before_anything_is_said(tmp_path):
    (tmp_path / "taken").mkdir()
    result = CliRunner().invoke(main, ["train", "--name", "taken", "--runs", str(tmp_path)])
    assert result.exit_code == 2 and "exists already" in result.stderr and not result.stdout
    assert "built-in" not in result.output
