"""Healthy twins: every cause has one, and no check that can name the cause accuses it."""

from __future__ import annotations

import dataclasses

import pytest

from mlxstories.faults.recipe import healthy
from mlxstories.faults.twins import TWINS, Twin, consistency, data, model, training, wiring
from mlxstories.ladder import CATALOGUE
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS, Check
from mlxstories.ladder.verdict import PASSED, SKIPPED
from mlxstories.repair.suspects import suspects

PARTS = [part.TWINS for part in (data, model, consistency, training, wiring)]
# Named after the climb, by the trainings of --deep.
UNCHECKED = {"behind-reference", "ahead-of-reference"}


# What names these needs the longest trainings, six seconds and more each.
COSTLY = {
    "learning-rate-too-small",
    "too-good-to-be-true",
    "no-better-than-unigram",
    "overfitting",
}


def asked(code: str) -> list[Check]:
    """The checks that can name this cause; those with the longer trainings of the short rung where no other can."""
    # whatever calls the subject can find that its code fails
    calling = ("data", "init", "trained") if code == "subject-error" else ()
    return [
        c
        for c in CHECKS.values()
        if (code in c.causes or c.rung in calling) and (c.rung != "short" or code in COSTLY)
    ]


def accusations(twin: Twin) -> list[str]:
    """What the checks say of it. Each is asked alone, and measures no more than it needs; the whole climb is the
    benchmark's."""
    bench = Bench(twin.plant(healthy()).subject(twin.name))
    with bench.protected():
        verdicts = [check.ask(bench, check.gauges()) for check in asked(twin.code)]
    assert any(verdict.status != SKIPPED for verdict in verdicts), "no check looks at it"
    drafts = [draft for verdict in verdicts for draft in verdict.drafts]
    return [draft.message for draft in drafts if draft.code == twin.code and draft.severity == "error"]


def test_every_cause_has_a_twin_that_changes_the_recipe():
    assert {twin.code for twin in TWINS.values()} == CATALOGUE.keys()
    assert len(TWINS) == sum(map(len, PARTS))
    recipe = healthy()
    before = dataclasses.replace(recipe)
    assert all(twin.plant(recipe) != before for twin in TWINS.values())
    assert recipe == before


def test_every_check_names_causes_of_the_table():
    named = {code for check in CHECKS.values() for code in check.causes}
    assert named == CATALOGUE.keys() - UNCHECKED


def told_apart():
    """The twins; the quick suite takes one of each cause that is told without a training."""
    known = set()
    for name, twin in TWINS.items():
        if twin.code not in UNCHECKED:
            trained = {check.rung for check in asked(twin.code)} - {"data", "init"}
            yield pytest.param(
                twin, id=name, marks=[pytest.mark.long] * (trained != set() or twin.code in known)
            )
            known.add(twin.code)


@pytest.mark.parametrize("twin", [*told_apart()])
def test_no_check_accuses_the_twin(twin):
    assert accusations(twin) == []


def test_sixteen_bits_round_a_cached_step_apart():
    twin = TWINS["bfloat16-throughout"]
    bench = Bench(twin.plant(healthy(1)).subject(twin.name), 1)
    check = CHECKS["generation is the argmax"]
    with bench.protected():
        assert check.ask(bench, check.gauges()).status == PASSED


@pytest.mark.parametrize("name", ["epsilon-1e-6-and-beta2-0.9", "decay-0.1", "warmup-of-30-percent"])
def test_repair_does_not_suspect_a_twin(name):
    phase = TWINS[name].plant(healthy()).phase
    assert suspects(phase, 1000, gradient_norm=1.0, parameters=50_000) == []
