"""Losses that make the logits themselves, of what a part of their model returns."""

from __future__ import annotations

import pytest

from mlxstories.errors import StoriesError
from mlxstories.ladder import diagnose
from tests.ladder.scripts import LOOP, MODEL, line_of

WHOLE = """
class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.table = Model(), nn.Embedding(V, 16)
        self.body.out = nn.Linear(16, 16)

    def __call__(self, ids):
        return self.table.as_linear(self.body(ids))

def counted(spans):
    cell = mx.arange(1, T + 1)
    return ((cell >= spans[:, :1]) & (cell <= spans[:, 1:])).astype(mx.float32)

def chunks(model, x, y, mask):
    hidden, total = model.body(x), 0
    for k in range(0, x.shape[1], 3):
        logits = hidden[:, k : k + 3] @ model.table.weight.T
        total = total + (nn.losses.cross_entropy(logits, mx.maximum(y[:, k : k + 3], 0)) * mask[:, k : k + 3]).sum()
    return total / mask.sum()

model = Whole()
"""
ASKED = {
    "inputs, targets and a mask": ("chunks(m, x, y, mask)", "data[:, :-1], y, mask"),
    "no mask": ("chunks(m, x, y, mx.ones(x.shape))", "data[:, :-1], data[:, 1:]"),
    "tokens": ("chunks(m, x[:, :-1], x[:, 1:], mx.ones(x[:, 1:].shape))", "data"),
    "first and last cells": ("chunks(m, x[:, :-1], x[:, 1:], counted(y))", "data, spans"),
    "targets that do not count": ("chunks(m, x, y, y >= 0)", "data[:, :-1], mx.where(mask > 0, y, -100)"),
}
MADE = """\
    spans = mx.array([[1, 3], [1, 5], [1, 7], [1, 8]])
    y = data[:, 1:]
    mask = (mx.arange(T)[None] < spans[:, 1:]).astype(mx.float32)
"""


def text_of(asked, changed=""):
    call, given = ASKED[asked]
    names = ["x"] if given == "data" else ["x", "y", "mask"] if given.endswith(", mask") else ["x", "y"]
    loss = f"def loss_fn(m, {', '.join(names)}):\n    return {call}{changed}\n"
    loop = LOOP.replace("data[:, :-1], data[:, 1:]", given).replace("rows()\n", "rows()\n" + MADE)
    return MODEL + WHOLE + loss + loop


@pytest.mark.parametrize("asked", ASKED)
def test_the_batch_is_found_by_the_value_of_the_loss(captured, asked):
    script = captured(text_of(asked))
    x, y, mask = script.batches[0]
    assert x.shape == y.shape == (4, 8) and (x[:, 1:] == y[:, :-1])[mask[:, :-1] > 0].all()
    assert mask.sum() == (32 if asked in ("no mask", "tokens") else 23)
    assert not [f for f in diagnose(script.subject, rungs=("data", "init")).findings if f.severity == "error"]


def test_what_such_a_loss_does_wrong_is_found(captured):
    text = (
        text_of("no mask")
        .replace("model.body(x), 0", "model.body(x), 0.0 * mx.sum(x)")
        .replace("data[:, :-1], data[:, 1:]", "data[:, :-1], data[:, :-1]")
    )
    assert "targets-not-shifted" in {
        f.code for f in diagnose(captured(text).subject, rungs=("data",)).findings
    }


@pytest.mark.parametrize("asked", ["no mask", "first and last cells"])
def test_a_factor_that_the_loss_leaves_out_is_named(captured, asked):
    scaled = text_of(asked).replace("return self.table.as_linear", "return 0.25 * self.table.as_linear")
    script = captured(scaled)
    assert script.roles.first.line.line == line_of(scaled, "return chunks") - 1
    found = diagnose(script.subject, rungs=("data", "init")).findings
    assert [f.code for f in found if f.severity == "error"] == ["wrong-loss"]
    assert next(f for f in found if f.code == "wrong-loss").evidence["times"] == pytest.approx(4, rel=1e-3)


def test_a_factor_that_both_have_is_none(captured):
    both = text_of("no mask").replace("return self.table.as_linear", "return 0.25 * self.table.as_linear")
    both = both.replace("logits = hidden", "logits = 0.25 * hidden")
    found = diagnose(captured(both).subject, rungs=("data", "init")).findings
    assert not [f for f in found if f.severity == "error"]


def test_a_loss_that_is_something_else_is_refused(captured):
    with pytest.raises(StoriesError, match="does not call the model on token ids"):
        captured(text_of("no mask", " + 0.5"))
