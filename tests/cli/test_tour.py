"""`mlxstories tour`; the whole of it runs in .ci/run."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.tour import STOPS, Stop, run
from mlxstories.errors import StoriesError


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.title)
def test_every_stop_is_a_command_that_exists(stop):
    command, words = main, shlex.split(stop.command)
    context = click.Context(main, **main.context_settings)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    command.make_context(command.name, words, parent=context)


def test_a_stop_runs_in_its_folder_and_tells_a_wrong_ending(tmp_path, capfd):
    run(Stop("", "", "data show --stories 1 --seed 7"), tmp_path)
    assert "\n" in capfd.readouterr().out
    with pytest.raises(StoriesError, match="`mlxstories sample nobody` ended with exit code 2"):
        run(Stop("", "", "sample nobody"), tmp_path)


def test_it_asks_in_a_terminal_and_leaves_nothing_behind(tmp_path):
    terminal, end = pty.openpty()
    os.write(terminal, b"q\n")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    arguments = [sys.executable, "-m", "mlxstories.cli", "tour"]
    done = subprocess.run(arguments, stdin=end, env=environment, capture_output=True, text=True)
    os.close(end)
    os.close(terminal)
    assert done.returncode == 0 and f"1 of {len(STOPS)}" in done.stdout and "2 of" not in done.stdout
    assert "$ mlxstories data show" in done.stdout
    assert not list(tmp_path.glob("mlxstories-tour-*"))


def test_the_folder_of_an_earlier_tour_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    result = CliRunner().invoke(main, ["tour", "--yes", "--keep", str(tmp_path)])
    assert result.exit_code == 2 and "holds a tour's run already" in result.output
    assert "1 of" not in result.output
