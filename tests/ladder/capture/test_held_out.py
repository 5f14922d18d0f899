"""The batches of a script's own validation, which the ladder examines as it does those of training."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.ladder import diagnose
from mlxstories.ladder.capture.passes import _inputs
from tests.ladder.scripts import LOOP, MODEL, line_of

HELD = "held = [rows() for _ in range(12)]\n"
UNEQUAL = HELD + "held[-1] = held[-1][:1]\n"  # its mean of batches is none per token
PRINTED = """    if i % 40 == 30:
        model.eval()
        losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]
        model.train()
        print(f"step {i}: val loss {sum(losses) / len(losses):.4f}")
"""


def errors(script):
    return [
        f
        for f in script.explained(diagnose(script.subject, rungs=["data"])).findings
        if f.severity == "error"
    ]


@pytest.mark.parametrize("rows", [HELD, UNEQUAL])
def test_what_the_script_validates_on_is_examined(captured, rows):
    script = captured(MODEL + rows + LOOP + PRINTED)
    held, seen = script.loop.script.names()["held"], list(script.subject.val_batches())
    assert len(seen) == 12
    for rows, (inputs, targets) in zip(held, seen, strict=True):
        assert np.array_equal(inputs, rows[:, :-1]) and np.array_equal(targets, rows[:, 1:])
    assert not errors(script)


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ("data = rows()", "data = held[i % 12]", "train-val-overlap"),
        ("data[:, 1:]).item()", "data[:, :-1]).item()", "targets-not-shifted"),
        ("data[:, 1:]).item()", "held[0][:, 1:]).item()", "targets-mismatched"),
    ],
)
def test_a_mistake_in_it_is_named(captured, right, wrong, code):
    text = (MODEL + HELD + LOOP + PRINTED).replace(right, wrong)
    (first, *_) = errors(captured(text))
    assert first.code == code and first.where["line"] == line_of(text, "losses = [")


@pytest.mark.parametrize("printed", [PRINTED.replace(":.4f", ":.1f"), PRINTED.replace("val loss", "loss")])
def test_where_it_is_not_sure_which_rows_were_held_out_none_are(captured, printed):
    assert captured(MODEL + HELD + LOOP + printed).subject.val_batches is None


def test_inputs_are_the_ids_to_which_targets_belong():
    ids = mx.array([[1, 2, 3], [4, 5, 6]])
    assert _inputs(ids, np.array([[7, 8, 9], [7, 8, 9]])).tolist() == ids.tolist()
    assert _inputs(ids, np.array([[2, 3], [5, -1]])).tolist() == [[1, 2], [4, 5]]
    assert _inputs(ids, np.array([[2, 2], [5, 6]])) is None
    assert _inputs(ids, np.array([[1, 2, 3, 4]])) is None
    assert _inputs(None, np.array([[1]])) is None and _inputs(mx.zeros((1, 1)), np.array([[1]])) is None


def test_a_model_of_parts_may_take_its_loss_itself_and_be_validated_first(captured):
    parts = """
class Mixes(nn.Module):
    def __call__(self, x):
        return x + mx.tanh(mx.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mixes, self.out = nn.Embedding(V, 16), Mixes(), nn.Linear(16, V)

    def __call__(self, ids, targets=None):
        logits = self.out(self.mixes(self.embed(ids)))
        if targets is None:
            return logits
        return logits, nn.losses.cross_entropy(logits.reshape(-1, V), targets.reshape(-1)).mean()


def loss_fn(model, x, y):
    return model(x, y)[1]


mx.random.seed(0)
model = Model()
"""
    script = captured(MODEL + parts + HELD + LOOP + PRINTED.replace("i % 40 == 30", "i % 40 == 0"))
    held, seen = script.loop.script.names()["held"], list(script.subject.val_batches())
    assert all(np.array_equal(inputs, rows[:, :-1]) for rows, (inputs, _) in zip(held, seen, strict=True))
    assert not errors(script)
