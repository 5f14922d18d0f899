"""Planted faults: the catalogue is covered, every plant changes the recipe, the ladder names the cause."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import pytest

from mlxstories.errors import StoriesError
from mlxstories.faults import FAULTS, find
from mlxstories.faults.recipe import built_in, healthy
from mlxstories.ladder import CATALOGUE, diagnose

# Codes that are only warnings or notes.
UNPLANTED = {"overfitting", "repetition-loop", "extreme-constants"}

CHEAP = (
    "val-is-train",
    "targets-two-ahead",
    "negative-id",
    "tokenizer-of-characters",
    "loss-forgets-mask",
    "iterator-used-up",
    "softer-mask",
    "leak-behind-zero-gate",
    "attention-over-batch",
    "mask-without-diagonal",
    "last-position-only",
    "widths-disagree",
)


def first_error(name: str, rungs=None) -> str | None:
    findings = diagnose(built_in(fault=name), rungs=rungs).findings
    return next((finding.code for finding in findings if finding.severity == "error"), None)


def test_the_catalogue_is_covered():
    assert len(FAULTS) >= 45
    assert {fault.code for fault in FAULTS.values()} == CATALOGUE.keys() - UNPLANTED


def test_an_unknown_fault_is_refused():
    with pytest.raises(StoriesError, match="no-such-fault"):
        find("no-such-fault")


@pytest.mark.parametrize("name", FAULTS)
def test_a_plant_changes_the_recipe_and_leaves_the_healthy_one_alone(name):
    recipe = healthy()
    before = dataclasses.replace(recipe)
    planted = FAULTS[name].plant(recipe)
    assert any(
        getattr(planted, field.name) is not getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
    ) or (type(planted) is not type(recipe))
    assert all(getattr(recipe, f.name) is getattr(before, f.name) for f in dataclasses.fields(recipe))
    if FAULTS[name].code == "subject-error":
        return
    logits = planted.subject().model()(mx.array([[0, 5, 6, 7]] * 2))
    assert (logits[0] if isinstance(logits, tuple) else logits).shape[:2] == (2, 4)


@pytest.mark.parametrize("name", CHEAP)
def test_the_cheap_rungs_name_the_cause(name):
    assert first_error(name, ["data", "init"]) == FAULTS[name].code


@pytest.mark.parametrize("name", ["second-best-token"])
def test_the_whole_ladder_names_the_cause(name):
    assert first_error(name) == FAULTS[name].code
