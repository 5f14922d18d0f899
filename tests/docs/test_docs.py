"""The generated parts of the documentation are current, and the README's links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
from importlib.metadata import version
from pathlib import Path

import pytest

import mlxstories
from mlxstories.faults import FAULTS
from mlxstories.ladder import CATALOGUE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_page_of_commands_is_current():
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    generated = runpy.run_path(str(DOCS / "generate.py"))["cli"]()
    assert written.split() == generated.split(), "run `python docs/generate.py cli`"


def test_the_page_of_checks_is_current_and_shows_the_margins():
    written = (DOCS / "checks.md").read_text(encoding="utf-8")
    assert written.split() == runpy.run_path(str(DOCS / "generate.py"))["checks"]().split(), (
        "run `python docs/generate.py checks`"
    )
    for name, limits in json.loads((ROOT / "mlxstories" / "ladder" / "margins.json").read_text()).items():
        section = re.split(r"^#+ ", written.split(f"\n### {name}\n")[1], maxsplit=1, flags=re.M)[0]
        for limit, margins in limits.items():
            (row,) = re.findall(rf"^\| {limit.replace('_', ' ')} \|.*$", section, re.M)
            for kind in margins.keys() & {"healthy", "faulty"}:
                assert " to ".join(f"{reading:.3g}" for reading in margins[kind]) in row


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The catalogue of docs/ladder.md by code."""
    page = (DOCS / "ladder.md").read_text(encoding="utf-8")
    parts = re.split(r"^### `([a-z-]+)`.*$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_code_of_the_catalogue_is_explained(sections):
    assert list(sections) == list(CATALOGUE), "run `python docs/generate.py ladder`"
    for code, meaning in CATALOGUE.items():
        assert sections[code].strip().lower().startswith(meaning.lower())
        named = set(re.findall(r"`(?:--break )?([a-z0-9.-]+)` \(", sections[code]))
        assert named == {fault.name for fault in FAULTS.values() if fault.code == code}, code
        assert not named or "**Fix:**" in sections[code]


def test_links_of_the_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(targets) > 10
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_diff_that_adds_a_check_is_what_stands_in_the_code():
    diff = re.search(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)[1]
    hunks = re.findall(r"^\+\+\+ b/(\S+)\n@@.*\n((?:\+.*\n)+)", diff, re.M)
    for path, added in hunks:
        lines = re.sub(r"^\+", "", added, flags=re.M)
        assert lines in (ROOT / path).read_text(encoding="utf-8"), path
    rooms = {room for path, _ in hunks for room in path.split("/")}
    assert rooms >= {"findings", "bench", "checks", "faults", "twins"}


def test_the_version_comes_from_one_place():
    assert mlxstories.__version__ == version("mlxstories")
    assert f"## {mlxstories.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_hosted_ci_runs_the_commands_of_the_readme():
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("## Install and run")[2]
        .partition("\n## ")[0]
    )
    commands = [line for block in section.split("```")[1::2] for line in block.strip().splitlines()]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert len(commands) == 2
    for command in [*commands, "mlxstories info --check"]:
        assert f"- run: {command}\n" in workflow
