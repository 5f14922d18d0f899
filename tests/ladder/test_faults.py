"""Planted faults: the catalogue is covered, every plant changes the recipe, the ladder names the cause."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import pytest

from mlxstories.errors import StoriesError
from mlxstories.faults import FAULTS, Fault, find
from mlxstories.faults.recipe import built_in, healthy
from mlxstories.ladder import CATALOGUE, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS, RUNGS

# Causes without a fault: what names them is never an error of the climb.
UNPLANTED = {
    "overfitting": "a warning beside a rate that is too large, or of a run that knows its stories by heart",
    "repetition-loop": "a note on greedy text",
    "behind-reference": "named by --deep alone, which tests/ladder/exchange/test_exchange.py tries",
    "ahead-of-reference": "named by --deep alone, for what the climb does not know",
}

# The rung that names a fault, where an earlier one knows the cause by another sign.
LATER = {
    "last-position-only": "init",
    "shifted-in-one-line": "init",
    "widths-disagree": "init",
    "embedding-too-small": "init",
    "loss-forgets-mask": "init",
    "batch-without-target": "minimal",
    "update-forgotten": "minimal",
    "update-dropped": "minimal",
    "rate-0": "minimal",
    "gradients-negated": "minimal",
    "velocity-backwards": "minimal",
    "lion-at-3e-2": "short",
    "plateau-of-a-rising-loss": "short",
    "clipped-after-orthogonalising": "sweep",
    "schedule-over-40-updates": "sweep",
    "schedule-in-batches": "sweep",
    "same-half-accumulated": "minimal",
    "rate-1e-5": "sweep",
    "noam-at-3e-4": "sweep",
    "sgd-at-1e-3": "sweep",
    "padding-counts-as-right": "trained",
    "padding-averaged": "trained",
    "validation-smoothed": "trained",
}


def rung_of(fault: Fault) -> str:
    """The lowest rung that names it."""
    rungs = {check.rung for check in CHECKS.values() if fault.code in check.causes}
    return LATER.get(fault.name) or min(rungs, key=RUNGS.index)


def test_the_catalogue_is_covered():
    assert len(FAULTS) >= 45
    assert {fault.code for fault in FAULTS.values()} == CATALOGUE.keys() - UNPLANTED.keys()


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


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_the_rung_names_the_cause(name):
    fault = FAULTS[name]
    findings = diagnose(built_in(fault=name), rungs=[rung_of(fault)]).findings
    if fault.severity == "warning":
        assert [f.code for f in findings if f.severity == "error"] == []
        assert fault.code in [f.code for f in findings]
    else:
        assert next((f.code for f in findings if f.severity == "error"), None) == fault.code


def asked() -> list[str]:
    """One fault of each cause that is named before anything is trained, but for those of the subject itself; the long
    tests climb to all."""
    first = {}
    for name, fault in FAULTS.items():
        if fault.code != "subject-error" and rung_of(fault) in ("data", "init"):
            first.setdefault(fault.code, name)
    return list(first.values())


@pytest.mark.parametrize("name", asked())
def test_a_check_names_the_cause(name):
    """The checks of that rung alone, which measure no more than they need."""
    fault = FAULTS[name]
    bench = Bench(built_in(fault=name))
    checks = [c for c in CHECKS.values() if fault.code in c.causes and c.rung == rung_of(fault)]
    with bench.protected():
        drafts = [draft for check in checks for draft in check.ask(bench, check.gauges()).drafts]
    assert (fault.code, fault.severity) in [(draft.code, draft.severity) for draft in drafts]
