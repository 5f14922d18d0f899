"""`mlxstories debug`: every check and what unlocks those that were skipped, and what is said of a part of it."""

import sys

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.ladder_screen import LadderScreen
from mlxstories.faults import FAULTS
from mlxstories.findings import Finding
from mlxstories.ladder.diagnosis import Diagnosis, Line, Rung
from mlxstories.ladder.registry import checks_of
from mlxstories.ladder.verdict import OTHER_TASK, OUT_OF_TIME

SETUP = """
import dataclasses
from mlxstories.faults.recipe import healthy

def subject():
    return dataclasses.replace(healthy(0).subject(), val_batches=None, tokenizer=None)
"""


def test_every_check_is_listed_and_what_unlocks_it(tmp_path):
    (tmp_path / "setup.py").write_text(SETUP)
    result = CliRunner().invoke(main, ["debug", str(tmp_path / "setup.py"), "--rung", "data", "-v"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for check in checks_of("data"):
        assert any(line.startswith(("  ✓ ", "  – ")) and check.name in line for line in lines), check.name
    assert any("Subject(tokenizer=, val_batches=) unlocks it" in line for line in lines)


def test_the_list_of_faults_says_which_are_told_by_a_warning():
    lines = CliRunner().invoke(main, ["debug", "--break", "list"]).output.splitlines()
    for fault in FAULTS.values():
        told = f"[{fault.code}, a warning]" if fault.severity == "warning" else f"[{fault.code}]"
        assert any(line.split()[:1] == [fault.name] and line.endswith(told) for line in lines), fault.name


def test_what_was_not_climbed_is_not_called_healthy():
    result = CliRunner().invoke(main, ["debug", "--rung", "data"])
    assert result.exit_code == 0 and "built-in recipe: no error on the rungs climbed, in" in result.output


@pytest.mark.parametrize(
    "words, told",
    [
        (["--steps", "3"], "--steps is for training scripts, and the built-in recipe is not one"),
        (["--set", "a=1"], "--set is for training scripts, and the built-in recipe is not one"),
        (["--follow"], "--follow is for training scripts"),
        (["setup.py", "--", "more"], "what follows -- is for training scripts, and setup.py is not one"),
        (["lost.py", "--", "more"], "lost.py: no such file"),
        (["-m", "lost"], "-m lost: no such module is installed or in the working directory"),
        (["-m", "lost.train", "--follow"], "-m lost.train: no such module"),
    ],
)
def test_what_only_a_script_can_heed_is_refused_elsewhere(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").write_text(SETUP)
    result = CliRunner().invoke(main, ["debug", *words])
    assert result.exit_code == 2 and told in result.output, result.output


@pytest.mark.parametrize(
    "words, told",
    [
        (
            ["--follow", "train.py", "--deep"],
            "--follow runs the script to its end, without a climb: leave out --deep",
        ),
        (["--follow", "train.py", "--sarif", "-"], "leave out --sarif"),
        (["--write-subject", "a.py", "--json", "-", "train.py"], "--write-subject stops when it is written"),
        (["--write-subject", "a.py", "--follow", "train.py"], "leave out --write-subject"),
        (["--accept", "future-leek"], "Did you mean 'future-leak'?"),
        (["--follow", "train.py", "--accept", "future-leak"], "leave out --accept"),
        (["--break", "list", "--json", "-"], "--break list only lists the faults: leave out --json"),
        (["--json", "-", "--sarif", "-"], "--json and --sarif name the same place"),
        (["--json", "."], "'.' is a directory"),
        (["--export", "train.py"], "'train.py' is a file"),
    ],
)
def test_what_would_not_be_heeded_or_written_is_refused_first(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("raise SystemExit(9)")
    result = CliRunner().invoke(main, ["debug", *words])
    assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_ctrl_c_does_not_end_as_an_error_that_was_found(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlxstories.ladder.diagnose", interrupted)
    result = CliRunner().invoke(main, ["debug", "--rung", "data"])
    assert result.exit_code == 130 and result.output.endswith("\nStopped.\n")


def test_a_check_that_passed_with_a_warning_has_no_tick(capsys):
    rung = Rung(
        "init", "passed", checks=[Line("tied weights are one", "passed", "a and b are two", ("tie-broken",))]
    )
    LadderScreen(sys.stdout).checks(Diagnosis("a subject", [], [rung], 0.0))
    assert capsys.readouterr().out == "\ninit\n  ! tied weights are one, but tie-broken: a and b are two\n"


def test_a_check_that_failed_does_not_read_as_its_claim(capsys):
    line = Line("sees no later token", "failed", "1.0e+00 relative change", ("future-leak",))
    rung = Rung("init", "failed", 1.0, [line])
    screen = LadderScreen(sys.stdout)
    screen.event("done", rung)
    screen.checks(Diagnosis("a subject", [], [rung], 0.0))
    told = 'future-leak: fails "sees no later token" (1.0e+00 relative change)'
    assert capsys.readouterr().out.splitlines() == [f"✗ init       1.0 s  {told}", "", "init", f"  ✗ {told}"]


@pytest.mark.parametrize(
    "evidence, told",
    [
        ({"ended": OUT_OF_TIME}, "time ran out"),
        ({"ended": OTHER_TASK}, "not examined"),
        ({}, "subject-error"),
    ],
)
def test_a_climb_that_was_not_made_is_not_told_as_a_mistake(capsys, evidence, told):
    finding = Finding("subject-error", "error", "data", "m", evidence, "f")
    LadderScreen(sys.stdout).verdict(Diagnosis("a subject", [finding], [], 3.0), story=False)
    assert capsys.readouterr().out.endswith(f"\na subject: {told}, in 3.0 s\n")


WANTS = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args()\n"


@pytest.mark.parametrize(
    "words, told",
    [
        (["train.py"], "mlxstories debug train.py -- ARGUMENTS"),
        (["-m", "train"], "mlxstories debug -m train -- ARGUMENTS"),
        (["--follow", "train.py"], "mlxstories debug --follow train.py -- ARGUMENTS"),
        (["train.py", "--data", "x"], "mlxstories debug train.py -- ARGUMENTS"),
    ],
)
def test_where_the_arguments_of_a_script_belong(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(WANTS)
    result = CliRunner().invoke(main, ["debug", *words])
    assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert "--write-subject" not in result.output
