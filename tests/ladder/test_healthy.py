"""Healthy subjects: no error finding, on the cheap rungs for some and on the whole ladder among the long tests."""

from __future__ import annotations

import pytest
from healthy import HEALTHY

from mlxstories.ladder import diagnose

WHOLE = ("eight-rows",)
CHEAP = ("causal-convolution", "no-positions", "padded-rows", "everything-given")
CHEAP_LONG = ("built-in-recipe", "mixture-of-experts", "linear-attention", "frozen-positional-table")


def errors(name: str, rungs=None) -> list[str]:
    findings = diagnose(HEALTHY[name](0), rungs=rungs).findings
    return [f"{f.code}: {f.message}" for f in findings if f.severity == "error"]


def test_there_are_twenty_healthy_setups_at_least():
    assert len(HEALTHY) >= 20


@pytest.mark.parametrize(
    "name", [*CHEAP, *(pytest.param(name, marks=pytest.mark.long) for name in CHEAP_LONG)]
)
def test_the_cheap_rungs_accuse_nobody(name):
    assert errors(name, ["data", "init"]) == []


@pytest.mark.long
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_ladder_accuses_nobody(name):
    assert errors(name) == []


def test_mlx_lm_architectures():
    pytest.importorskip("mlx_lm")
    assert errors("mlx-lm-llama", ["data", "init"]) == []
