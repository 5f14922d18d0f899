"""Completion as real shells ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from mlxstories.cli import main
from mlxstories.cli.shells import Bash, Fish, Zsh

_ASK = """
compopt() { options+=" ${*: -1}"; }
options=""
. ./completion.bash
COMP_LINE=$1 COMP_POINT=${#1}
_mlxstories_completion mlxstories
printf '%s\\n' "$options" "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the command, what it has bash read once, and files to complete."""
    folder = tmp_path_factory.mktemp("shell")
    command = folder / "bin" / "mlxstories"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom mlxstories.cli import main\nmain(prog_name='mlxstories')\n")
    command.chmod(0o755)
    environment = {**os.environ, "_MLXSTORIES_COMPLETE": "bash_source"}
    with open(folder / "completion.bash", "w") as source:
        subprocess.run([command], env=environment, stdout=source, check=True)
    (folder / "tiny tales").mkdir()
    (folder / "tiny.txt").touch()
    return folder


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("line", "options", "offered"),
    [
        ("mlxstories tra", "", ["train"]),
        ("mlxstories train --data ti", "filenames", ["tinystories", "tiny tales", "tiny.txt"]),
        ("mlxstories debug ti", "default", []),  # bash completes files itself
        (
            "mlxstories train --arch mlx-lm:qwen3_m",
            "",
            ["qwen3_moe"],
        ),  # bash replaces what is behind the colon
        ("mlxstories train --arch=mlx-lm:qwen3_m", "", ["qwen3_moe"]),
        ("mlxstories train --schedule=ws", "", ["wsd"]),
        ("mlxstories train --set optimizer.learn", "nospace", ["optimizer.learning_rate="]),
        ("mlxstories debug --break no-causal-m", "", ["no-causal-mask"]),
        ("mlxstories compare --sizes small,ba", "", ["small,base"]),
        ("mlxstories compare --arch decoder,en", "", ["decoder,encoder"]),
        ("mlxstories compare --arch mlx-lm:qwen3_m", "", []),  # which it does not compare
    ],
)
def test_bash_is_offered_what_it_can_put_in_place(place, monkeypatch, line, options, offered):
    monkeypatch.setenv("PATH", f"{place / 'bin'}", prepend=":")
    done = subprocess.run(
        ["bash", "--norc", "-c", _ASK, "-", line], cwd=place, capture_output=True, text=True
    )
    assert not done.stderr
    said, *words = done.stdout.splitlines()
    assert sorted(words) == sorted(offered) and options in said and (options or not said.strip())


@pytest.mark.parametrize("shell", [Zsh, Fish])
def test_where_the_whole_word_is_replaced_its_option_stays(shell):
    complete = shell(main, {}, "mlxstories", "_MLXSTORIES_COMPLETE").get_completions
    assert [item.value for item in complete(["train"], "--optimizer=mu")] == ["--optimizer=muon"]
    assert [item.value for item in complete(["train", "--optimizer"], "mu")] == ["muon"]
    assert [
        item.value for item in Bash(main, {}, "mlxstories", "_").get_completions(["train"], "--optimizer=mu")
    ] == ["muon"]
