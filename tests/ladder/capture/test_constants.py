"""Constants of a script replaced for one run."""

from __future__ import annotations

import pytest

from mlxstories.errors import StoriesError
from tests.ladder.scripts import LOOP, MODEL


def test_constants_are_replaced_for_one_run(captured):
    text = """
from dataclasses import dataclass
@dataclass
class Config:
    rate: float = 1.0
"""
    text += MODEL.replace("Model()\n", "Model()\nimport argparse\np = argparse.ArgumentParser()\n")
    text += 'p.add_argument("--weight-decay", type=float, default=9.0)\nassert Config().rate == 0.5\n'
    text += "assert p.parse_args([]).weight_decay == 0.25 and (T, B) == (6, 4)\n"
    script = captured(text + LOOP, settings=["T=6", "rate=0.5", "weight_decay=0.25"])
    assert script.batches[0][0].shape == (4, 6)
    with pytest.raises(StoriesError, match="assigns no width"):
        captured(MODEL + LOOP, settings=["width=3"])
    with pytest.raises(StoriesError, match="NAME=VALUE"):
        captured(MODEL + LOOP, settings=["T"])


def test_constants_inside_functions_and_calls_are_replaced(captured):
    text = MODEL
    text += """
from types import SimpleNamespace as Namespace
sizes = {"length": 8}
T = sizes["length"]
def make(rate=2**-3, *, drop=0.5):
    inner = 3
    keep = inner
    sizes = Namespace()
    sizes.width = 5
    assert sizes.width == 2
    parts = {}
    parts["depth"] = 6
    assert parts == {"depth": 1}
    return dict(decay=9, rate=rate, inner=inner, drop=drop, kept=keep)
made = make()
assert made == dict(decay=1, rate=0.25, inner=4, drop=0.0, kept=4), made
"""
    settings = ["decay=1", "rate=0.25", "inner=4", "drop=0.0", "length=6", "width=2", "depth=1"]
    script = captured(text + LOOP, settings=settings)
    assert script.batches[0][0].shape == (4, 6)
    # A default of a class does not stand in the way of what is given for it.
    text = "class Config:\n    width = 1\nassert dict(width=8) == {'width': 3} and Config.width == 3\n"
    captured(MODEL + text + LOOP, settings=["width=3"])
    with pytest.raises(StoriesError, match="assigns no logits"):  # computed: no constant
        captured(MODEL + "def f():\n    logits = model(1)\n" + LOOP, settings=["logits=3"])
