"""`mlxstories debug --checks`: every check, and what unlocks those that were skipped."""

from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.ladder.registry import checks_of

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
