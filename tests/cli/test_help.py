"""What every command says of itself, and what the shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.options import SUITED
from mlxstories.cli.sections import Sectioned
from mlxstories.training.phases import RECORD
from mlxstories.training.recommended import ROWS


def commands(context: click.Context):
    """Every command under ``context``'s, each in a context of its own."""
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        below = click.Context(command, info_name=name, parent=context)
        yield below
        if isinstance(command, click.Group):
            yield from commands(below)


ALL = list(commands(click.Context(main, info_name="mlxstories", **main.context_settings)))


@pytest.mark.parametrize("context", ALL, ids=lambda context: context.command_path)
def test_every_option_explains_itself_in_two_lines(context):
    for option in context.command.params:
        if not isinstance(option, click.Option):
            continue
        assert option.help, f"{option.opts[0]} has no help"
        text = option.help.partition("[default")[0].strip()
        assert text[0] == text[0].upper() and text[-1] == ".", f"{option.opts[0]}: {text}"
        assert len(textwrap.wrap(text, 46)) <= 2, f"{option.opts[0]} needs three lines: {text}"
        default = option.get_default(context)
        if (
            not option.is_flag
            and isinstance(default, (str, int, float, Path, tuple))
            and default not in ((), "")
        ):
            told = option.show_default or f"[default: {default}" in option.help
            assert told, f"{option.opts[0]} hides its default {default!r}"


SECTIONED = [context for context in ALL if isinstance(context.command, Sectioned)]


@pytest.mark.parametrize("context", SECTIONED, ids=lambda context: context.command_path)
def test_every_option_stands_in_one_section(context):
    shown = re.findall(r"^  (-.*?)(?:  |$)", context.command.get_help(context), re.MULTILINE)
    options = [option for option in context.command.get_params(context) if isinstance(option, click.Option)]
    assert len(shown) == len(options)
    for option in options:
        assert sum(option.opts[0] in re.split(r"[ ,/]+", line) for line in shown) == 1, option.opts[0]


def test_what_suits_is_said_of_the_options_that_take_it():
    taken = set(RECORD) | set(ROWS[0].values())
    (train,) = [context.command for context in ALL if context.command.name == "train"]
    told = {
        option.name for option in train.params if (option.help or "").endswith(", or what suits the text]")
    }
    assert told == taken == SUITED


@pytest.mark.parametrize("context", ALL, ids=lambda context: context.command_path)
def test_every_command_says_what_it_does(context):
    first, _, _ = context.command.help.partition("\n")
    assert first.endswith(".") and len(first) <= 110


def test_commands_load_nothing_that_takes_long_before_their_options_are_right():
    heavy = "mlx.core", "numpy", "scipy", "matplotlib", "tokenizers", "rich"
    code = (
        "import sys; from mlxstories.cli import COMMANDS, main; "
        "[main.get_command(None, name) for name in COMMANDS]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def complete(*words: str, shell: str = "bash", directory=None) -> list[str]:
    """What ``shell`` is offered for the last of ``words``."""
    asked = {
        "_MLXSTORIES_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(["mlxstories", *words]),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    return run(asked, directory).split()


def run(environment: dict[str, str], directory=None) -> str:
    code = "from mlxstories.cli import main; main(prog_name='mlxstories')"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_complete(shell):
    assert any("train" in offered for offered in complete("tr", shell=shell))


def test_options_complete():
    assert complete("train", "--weight-d") == ["plain,--weight-decay"]


def test_runs_complete(tmp_path):
    for folder, name in (("runs", "first"), ("runs", "second"), ("elsewhere", "third")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "config.json").touch()
    assert complete("sample", "fi", directory=tmp_path) == ["plain,first"]
    assert complete("train", "--resume", "se", directory=tmp_path) == ["plain,second"]
    assert complete("plot", "--runs", "elsewhere", "th", directory=tmp_path) == ["plain,third"]
    assert complete("plot", "not-there", directory=tmp_path) == ["dir,not-there"]
    assert complete("debug", "my_setup", directory=tmp_path) == ["file,my_setup"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_lines_print_a_completion_script(shell):
    assert "_MLXSTORIES_COMPLETE" in run({"_MLXSTORIES_COMPLETE": f"{shell}_source"})


def test_a_group_without_a_command_shows_its_help():
    result = CliRunner().invoke(main, ["data"])
    assert "\n  prepare " in result.output and "Error" not in result.output
