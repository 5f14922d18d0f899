"""Operators that make one mistake in source, and what a mutant of a tiny setup is told to be."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys

import mutants
import pytest
from mutating.forked import forked
from mutating.lines import parts
from mutating.operators import OPERATORS
from mutating.page import found_deep, in_words, news, page
from mutating.second import LONGER
from mutating.setups import Origin, Workplace
from mutating.source import difference, mutations, remade
from mutating.trial import original, trial

SOURCE = """\
import mlx.core as mx


def forward(layer, x, rate=0.5):
    late = x[1:] - x
    x = layer(mx.softmax(x + late, axis=-1), rate)
    layer.train()
    if rate < 2:
        x = -late
    layer.seen = x
    return mx.softmax(
        x,
        axis=0,
    )
"""
EXPECTED = {
    "axis": {("-1", "-2"), ("0", "1")},
    "sign": {("x[1:] - x", "x[1:] + x"), ("x + late", "x - late"), ("-late", "late")},
    "shift": {("1", "2"), ("1", "0")},
    "scale": {("0.5", "5.0"), ("0.5", "0.05")},
    "swapped": {("x[1:] - x", "x - x[1:]")},
    "argument left out": {("mx.softmax(x + late, axis=-1)", "mx.softmax(x + late)")},
    "unwrapped": {("mx.softmax(x + late, axis=-1)", "x + late")},
    "term dropped": {("x[1:] - x", "x[1:]"), ("x + late", "x"), ("x + late", "late")},
    "comparison": {("rate < 2", "rate > 2"), ("rate < 2", "rate <= 2"), ("rate < 2", "not rate < 2")},
    "stop gradient": {("-late", "mx.stop_gradient(-late)")},
    "mode": {("layer.train()", "pass")},
    "state": {
        ("x = layer(mx.softmax(x + late, axis=-1), rate)", "layer(mx.softmax(x + late, axis=-1), rate)")
    },
    "statement deleted": {("layer.seen = x", "pass")},
}
TINY = """\
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxstories.ladder import Subject

RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 31, (480, 13))
for t in range(12):
    ROWS[:, t + 1] = (3 * ROWS[:, t] + RNG.integers(0, 2, 480)) % 31


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(31, 32), nn.Linear(32, 31)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.head(x)


def batches(seed=0):
    for start in range(32, 480, 16):
        yield mx.array(ROWS[start : start + 16, :-1]), mx.array(ROWS[start : start + 16, 1:])


def held():
    yield mx.array(ROWS[:32, :-1]), mx.array(ROWS[:32, 1:])


def subject():
    return Subject(
        model=Model,
        vocab_size=31,
        train_batches=batches,
        val_batches=held,
        optimizer=lambda: optim.Adam(1e-2, bias_correction=True),
    )
"""


def everywhere(source: str) -> dict[int, set[str]]:
    return {line: {"model"} for line in range(1, source.count("\n") + 2)}


@pytest.fixture(scope="module")
def made():
    return list(mutations(SOURCE, everywhere(SOURCE), random.Random(0)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_changes_what_it_says_it_does(made, operator):
    found = {(m.before, m.after) for m in made if m.operator == operator}
    assert EXPECTED[operator] <= found


def test_mutants_are_valid_source_that_differs_in_one_place(made):
    assert len({m.source for m in made}) == len(made) > 30
    lines = SOURCE.splitlines()
    for mutation in made:
        ast.parse(mutation.source)
        changed = mutation.source.splitlines()
        assert len(changed) == len(lines), "lines below a change keep their numbers"
        differing = [i + 1 for i, (a, b) in enumerate(zip(lines, changed, strict=True)) if a != b]
        assert mutation.line == differing[0]


def test_a_mutant_is_made_again_from_its_diff(made):
    for mutation in made:
        again = remade(SOURCE, difference(SOURCE, mutation.source), mutation.line)
        assert ast.dump(ast.parse(again)) == ast.dump(ast.parse(mutation.source))
        assert len(again.splitlines()) == len(mutation.source.splitlines())
    assert remade("x = 1\n", ["-x = 2", "+x = 3"], 1) is None


def test_what_is_not_run_stays_and_a_seed_decides():
    lines = {5: {"data"}}
    once, again = (list(mutations(SOURCE, lines, random.Random(3))) for _ in range(2))
    assert once == again
    assert {m.line for m in once} == {5}
    assert "stop gradient" not in {m.operator for m in once}, "data know no gradient"


def test_parts_are_drawn_alike_however_long_they_are():
    lines = {line: {"model"} for line in range(5, 15)} | {9: {"loss"}}
    first = [next(mutations(SOURCE, lines, random.Random(seed))).line for seed in range(40)]
    assert 10 <= first.count(9) <= 30


def test_the_part_that_runs_a_line():
    source = "import mlx.optimizers as optim\n\n\nRATES = optim.cosine_decay(\n    1e-2, 10\n)\n"
    ran = {"1": ["import"], "4": ["import"], "5": ["import"], "2": ["loss", "step"], "3": ["model", "step"]}
    told = {2: {"loss"}, 3: {"model"}, 4: {"step"}, 5: {"step"}}
    assert parts(source, ran, script=False) == told
    assert parts("x = 1\n" * 5, ran | {"5": ["step"]}, script=True)[5] == {"data", "step"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "a" / "own").mkdir(parents=True)
    (folder / "b").mkdir()
    (folder / "a" / "own" / "tiny.py").write_text(TINY)
    return Workplace(Origin(folder / "a" / "own" / "tiny.py", "subject"), folder / "b")


@pytest.fixture(scope="module")
def begun(workplace):
    return original(workplace, 40, workplace.folder / "kept", False)


def test_lines_that_a_part_runs_are_mutated_and_no_others(workplace, begun):
    lines = parts(TINY, begun["lines"]["own/tiny.py"], False)
    assert lines[21] == {"model"}
    assert lines[26] == {"data"}
    assert lines[39] == {"step"}
    assert not {8, 10} & set(lines), "the language"


@pytest.mark.parametrize(
    "before, after, verdict",
    [
        ("seed=0", "seed=1", "unchanged"),
        ("self.head(x)", "self.heads(x)", "does not run"),
        ("nn.Linear(32, 31)", "nn.Linear(32, 31, bias=False)", "another setup"),
        ("start + 16, :-1", "start + 8, :-1", "does not run"),
        (
            "batches(seed=0):\n    for start in range(32",
            "batches(seed=0):\n    for start in range(48",
            "equivalent",
        ),
        ("self.head(x)", "self.head(x * 0)", "hurts"),
    ],
)
def test_a_mutant_is_judged_by_what_it_does_to_training(workplace, begun, before, after, verdict):
    assert before in TINY
    with workplace.holding(workplace.files[0], TINY.replace(before, after, 1)):
        found = trial(workplace, 40, workplace.folder / "kept", climbs=False)
    assert found["verdict"] == verdict, found
    assert ("findings" in found) == (verdict == "hurts")
    if verdict == "hurts":
        assert found["loss"] > found["original"]
        assert found["findings"][0]["part"] == "model"
    assert workplace.files[0].read_text() == TINY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_of_its_own_answers_or_says_how_it_ended():
    assert forked(lambda a, b: a + b, 2, 3)[0] == 5
    assert "ZeroDivisionError" in forked(lambda: 1 / 0)[0]
    assert forked(lambda: os.kill(os.getpid(), signal.SIGTERM))[0] == "ended by SIGTERM"


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_second_look_takes_what_is_not_known_yet(tmp_path):
    """One mutant hurts and is seen by nothing, one is accused and hurts later, one is accused and harmless, one of two
    that nothing accuses is drawn; what is known is not looked at again."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tiny.py").write_text(TINY)
    lines = {
        "miss": ("Adam(1e-2", "Adam(1e-5", "hurts", []),
        "later": ("Adam(1e-2, ", "Adam(lambda n: mx.where(n < 20, 1e-2, 1.0), ", "unchanged", ["error"]),
        "harmless": ("self.head(x)", "self.head(x + 0)", "unchanged", ["error"]),
        "silent": ("self.head(x)", "self.head(x - 0)", "unchanged", []),
        "silent too": ("self.head(x)", "self.head(x * 1)", "unchanged", []),
    }
    outcomes = [{"origin": "tiny.py: subject", "script": False, "mutant": None, "own": [], "seconds": 1.0}]
    for key, (before, after, verdict, severities) in lines.items():
        source = TINY.replace(before, after)
        diff = difference(TINY, source)
        line = next(i + 1 for i, text in enumerate(TINY.splitlines()) if text == diff[0][1:])
        outcomes.append(
            {
                "origin": "tiny.py: subject",
                "script": False,
                "file": "tiny.py",
                "key": key,
                "parts": ["step"],
                "mutant": {"operator": "scale", "line": line, "diff": diff, "before": before, "after": after},
                "verdict": verdict,
                "why": "",
                "findings": [{"code": "no-update", "severity": s, "part": "step"} for s in severities],
                "seconds": 1.0,
                "loss": 2.0,
                "original": 1.9,
            }
        )
    path = tmp_path / "o.json"
    path.write_text(json.dumps({"seed": 0, "updates": 12, "note": "", "outcomes": outcomes}))
    command = [sys.executable, mutants.__file__, "--zoo", "", "--file", f"{tmp_path}/own/tiny.py:subject"]
    command += ["--deep", str(path), "--deep-sample", "1"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    looked = {o["key"]: o for o in json.loads(path.read_text())["outcomes"] if o["mutant"]}
    assert "Of 1 equivalent ones without an error of the list" in said
    assert [f["code"] for f in looked["miss"]["deep"] if f["severity"] == "error"] == ["behind-reference"]
    assert sum("deep" in looked[key] for key in ("silent", "silent too")) == 1
    assert not any("deep" in looked[key] for key in ("later", "harmless"))
    assert {key for key, o in looked.items() if "longer" in o} == {"later", "harmless"}
    assert looked["later"]["longer"]["verdict"] == "hurts"
    assert looked["later"]["longer"]["updates"] == 12 * LONGER
    assert looked["harmless"]["longer"]["verdict"] == "equivalent"
    assert "Of the 2 equivalent ones with an error from either 0 raise an exception" in said
    assert "2 were trained for four times the updates, and 1 then hurt" in said
    written = path.read_text()
    subprocess.run(command, check=True, capture_output=True)
    assert path.read_text() == written


def test_what_the_exchange_finds_in_the_original_is_no_news():
    known = {"code": "behind-reference", "severity": "error", "part": "step"}
    new = known | {"part": "model"}
    outcomes = [
        {"origin": "a", "mutant": None, "own": [], "deep": [known]},
        {"origin": "a", "mutant": {"line": 1}, "findings": [], "deep": [known, new]},
        {"origin": "a", "mutant": {"line": 2}, "findings": [], "deep": "ended by SIGXCPU"},
        {"origin": "a", "mutant": {"line": 3}, "verdict": "unchanged"},
    ]
    assert [o.get("findings") for o in found_deep(outcomes)] == [None, [new], [], None]


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_is_gone_on_with_where_it_ended(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tiny.py").write_text(TINY)

    def run(minutes: str) -> list[dict]:
        command = [sys.executable, mutants.__file__, "--zoo", "", "--file", f"{tmp_path}/own/tiny.py:subject"]
        options = [
            "--updates",
            "24",
            "--minutes",
            minutes,
            "--json",
            f"{tmp_path}/o.json",
            "--keep",
            f"{tmp_path}/k",
        ]
        subprocess.run(command + options, check=True, capture_output=True)
        return json.loads((tmp_path / "o.json").read_text())["outcomes"]

    first = run("0.02")
    assert len(first) > 2
    known = run("0")  # ends at once, and loses nothing
    assert known[: len(first)] == first
    assert len(run("0.02")) > len(known)


def test_page_counts_and_lists_misses():
    mutant = {"operator": "sign", "line": 7, "diff": difference("x\na + b", "x\na - b")}
    common = {
        "origin": "one",
        "script": False,
        "file": "one.py",
        "mutant": mutant,
        "parts": ["model"],
        "seconds": 1.0,
        "loss": 2.0,
        "original": 1.9,
    }
    right = {"code": "future-leak", "severity": "error", "part": "model", "file": "one.py", "line": 9}
    outcomes = [
        {"origin": "one", "script": False, "mutant": None, "seconds": 1.0},
        common | {"verdict": "hurts", "why": "held-out loss +9.0%", "findings": [right]},
        common | {"verdict": "hurts", "why": "held-out loss +5.0%", "findings": []},
        common | {"verdict": "equivalent", "why": "held-out loss +0.1%", "findings": []},
    ]
    assert "an error is found for 1 of 2 (50%)" in in_words(outcomes)
    assert "the line within 3 for 1 of 2" in in_words(outcomes)
    written = page([{"seed": 5, "updates": 100, "note": "First", "outcomes": outcomes}])
    assert "\nFirst.\n\n3 mutants of 1 setups" in written
    assert "| [5](#seed-5) | 3 | 2 | 1 (50%) | 1 (50%) | 1 (50%) | 1 (50%) | 1 | 0 (0%) |" in written
    assert "| sign | 2 | 1 | 1 | 1 | 1 | 1 | 0 |" in written
    assert "### Seen by nothing: 1, seed 5" in written
    assert "-a + b\n+a - b" in written
    newer = {"seed": 6, "updates": 100, "note": "", "outcomes": []}
    older = page([{"seed": 5, "updates": 100, "note": "First", "outcomes": outcomes}, newer])
    assert "Seen by nothing: 1; a warning alone: 0" in older and "-a + b" not in older
    assert "### Seen by nothing: 0, seed 6" in older


def test_what_the_original_gets_too_is_no_news_of_a_mutant():
    known, new = {"code": "overfitting", "severity": "warning"}, {"code": "overfitting", "severity": "error"}
    outcomes = [
        {"origin": "a", "mutant": None, "own": [known]},
        {"origin": "a", "mutant": {"line": 1}, "findings": [known, new]},
        {"origin": "b", "mutant": {"line": 1}, "findings": [known]},
        {"origin": "a", "mutant": {"line": 2}, "verdict": "unchanged"},
    ]
    assert [o.get("findings") for o in news(outcomes)] == [None, [new], [known], None]
