"""Healthy twins: every cause has one, and no check that can name the cause accuses it."""

from __future__ import annotations

import dataclasses

import pytest

from mlxstories.faults.recipe import healthy
from mlxstories.faults.twins import TWINS
from mlxstories.ladder import CATALOGUE
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS
from mlxstories.repair.suspects import suspects

# Repair alone names it, by the constants and without a climb.
UNCHECKED = {"extreme-constants"}


def accusations(code: str) -> list[str]:
    """What the checks that can name this cause say of its twin. Each is asked alone, and measures no more than it
    needs; the whole climb is the benchmark's."""
    twin = TWINS[code]
    bench = Bench(twin.plant(healthy()).subject(twin.name))
    with bench.protected():
        verdicts = [check.ask(bench, check.gauges()) for check in CHECKS.values() if code in check.causes]
    drafts = [draft for verdict in verdicts for draft in verdict.drafts]
    return [draft.message for draft in drafts if draft.code == code and draft.severity == "error"]


def test_every_cause_has_a_twin_that_changes_the_recipe():
    assert TWINS.keys() == CATALOGUE.keys()
    recipe = healthy()
    before = dataclasses.replace(recipe)
    assert all(twin.plant(recipe) != before for twin in TWINS.values())
    assert recipe == before


def test_every_check_names_causes_of_the_table():
    named = {code for check in CHECKS.values() for code in check.causes}
    assert named == CATALOGUE.keys() - UNCHECKED


@pytest.mark.parametrize("code", [code for code in TWINS if code not in UNCHECKED])
def test_no_check_accuses_the_twin(code):
    assert accusations(code) == []


def test_repair_does_not_suspect_the_twins_constants():
    phase = TWINS["extreme-constants"].plant(healthy()).phase
    assert suspects(phase, 1000, gradient_norm=1.0) == []
