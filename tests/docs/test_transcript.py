"""What docs/transcript.py makes of the screens that it records."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "transcript.py"))
TRAINED = [
    "tales: 17 files read.",
    *(f"step {n:>5}  epoch {n}" for n in range(12)),
    "━━━ 12/12",
    "Counts alone",
]
TRAINED += ["seed 0, 9,000 tokens in 11 updates, 5 parameters, 2.0 s", "", "  A story."]
TOLD = [*(f"line {n}" for n in range(10)), "", "seed 7, told by runs/tales"]


def test_most_validations_and_long_stories_are_left_out():
    shown = SCRIPT["shortened"](TRAINED)
    assert [line.split()[1] for line in shown if line.startswith("step")] == ["0", "8", "9", "10", "11"]
    assert shown[0] == TRAINED[0] and shown[2] == "..." and shown[-1] == "Counts alone"
    assert SCRIPT["shortened"](TOLD) == [*TOLD[:8], "..."]
    assert SCRIPT["shortened"](TOLD[8:]) == TOLD[8:11]


def test_the_readme_has_a_place_for_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(zip(SCRIPT["COMMANDS"], (TRAINED, TOLD), strict=True))
    page = SCRIPT["written"](readme, 105_863, 90.4, 70.2, shown)
    before, after = readme.split(SCRIPT["BEGIN"])[0], readme.split(SCRIPT["END"])[1]
    assert page.startswith(before) and page.endswith(after)
    made = page[len(before) : -len(after)]
    assert max(map(len, made.split("```")[0].splitlines())) <= 120
    assert "106 KB" in made
    assert "90 seconds in all, 70 of CPU time (seed 0, 9,000 tokens in 11 updates)" in " ".join(made.split())
    assert all(f"$ {command}\n" in made for command in SCRIPT["COMMANDS"])
    assert SCRIPT["written"](page, 105_863, 90.4, 70.2, shown) == page
