"""Operators that make one mistake in source, and what a mutant of a tiny setup is told to be."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import mutants
import pytest
from mutants import Origin
from mutating.operators import OPERATORS
from mutating.page import in_words, page
from mutating.source import mutations

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


def test_what_is_not_run_stays_and_a_seed_decides():
    lines = {5: {"data"}}
    once, again = (list(mutations(SOURCE, lines, random.Random(3))) for _ in range(2))
    assert once == again
    assert {m.line for m in once} == {5}
    assert "stop gradient" not in {m.operator for m in once}, "data know no gradient"


def test_the_part_that_runs_a_line():
    ran = {"1": ["import"], "2": ["loss", "step"], "3": ["model", "step"], "4": ["evaluation"]}
    assert mutants.parts(ran, imported=False) == {2: {"loss"}, 3: {"model"}, 4: {"evaluation"}}
    assert mutants.parts(ran, imported=True)[1] == set()


@pytest.fixture
def workplace(tmp_path: Path):
    (tmp_path / "a" / "own").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "own" / "tiny.py").write_text(TINY)
    return mutants.Workplace(Origin(tmp_path / "a" / "own" / "tiny.py", "subject"), tmp_path / "b", 40)


def test_a_mutant_of_a_tiny_setup_is_told(workplace):
    begun = workplace.begin()
    lines = mutants.parts(begun["lines"][str(workplace.entry)], imported=True)
    assert lines[21] == {"model"}
    assert lines[26] == {"data"}

    def tried(before: str, after: str) -> dict:
        mutation = type("Mutation", (), {"source": TINY.replace(before, after, 1)})
        return workplace.mutated(workplace.entry, mutation, False)

    assert tried("seed=0", "seed=1")["verdict"] == "unchanged"
    assert tried("self.head(x)", "self.heads(x)")["verdict"] == "does not run"
    hurt = tried("self.head(x)", "self.head(x * 0)")
    assert hurt["verdict"] == "hurts", hurt
    assert hurt["loss"] > hurt["original"]
    assert hurt["findings"][0]["part"] == "model"
    assert workplace.entry.read_text() == TINY


def test_page_counts_and_lists_misses():
    mutant = {"operator": "sign", "line": 7, "diff": mutants.difference("x\na + b", "x\na - b")}
    common = {
        "origin": "one",
        "script": False,
        "file": "one.py",
        "mutant": mutant,
        "parts": ["model"],
        "seconds": 1.0,
    }
    right = {"code": "future-leak", "severity": "error", "part": "model", "file": "one.py", "line": 9}
    outcomes = [
        {"origin": "one", "mutant": None, "seconds": 1.0},
        common | {"verdict": "hurts", "why": "held-out loss +9.0%", "findings": [right]},
        common | {"verdict": "hurts", "why": "held-out loss +5.0%", "findings": []},
        common | {"verdict": "equivalent", "why": "held-out loss +0.1%", "findings": []},
    ]
    assert "an error is found for 1 of 2 (50%)" in in_words(outcomes)
    assert "the line within 3 for 1 of 2" in in_words(outcomes)
    written = page(outcomes, 5, 100)
    assert "| sign | 2 | 1 | 1 | 1 of 2 | 1 | 1 | 0 |" in written
    assert "## Seen by nothing (1)" in written
    assert "-a + b\n+a - b" in written
