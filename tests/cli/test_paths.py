"""Paths that the system cannot even look at are refused in one line."""

import pytest
from click.testing import CliRunner

from mlxstories.cli import main

LONG = "x" * 300
COMMANDS = [
    ["import", LONG],
    ["sample", LONG],
    ["debug", f"{LONG}.py"],
    ["train", "--data", LONG],
    ["train", "--name", LONG, "--stories", "20", "--size", "debug", "--steps", "1"],
    ["data", "prepare", "stories", "--stories", "20", "--to", LONG],
    ["tour", "--keep", LONG],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_name_that_is_too_long(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.exception
    assert "Error: " in result.stderr.splitlines()[-1] and LONG[:40] in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
