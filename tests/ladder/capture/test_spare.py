"""Gradients before the training that are none of its own: passed over, and only those."""

from __future__ import annotations

from pathlib import Path

import mlx.optimizers as optim
import pytest

from mlxstories.ladder.capture import script_findings
from tests.ladder.scripts import LOOP, MODEL, line_of

LOOKED_AT = """
looked_at = nn.value_and_grad(model, loss_fn)
for i in range({}):
    data = rows()
    loss, _ = looked_at(model, data[:, :-1], data[:, 1:])  # looks
    print(f"before training: {{loss.item():.3f}}")
"""
ACCUMULATING = """
optimizer, step = optim.SGD(0.1), nn.value_and_grad(model, loss_fn)
for i in range(100):
    data = rows()
    loss, total = step(model, data[:, :-1], data[:, 1:])
    for part in range(3):
        data = rows()
        loss, grads = step(model, data[:, :-1], data[:, 1:])  # more
        total = tree_map(mx.add, total, grads)
    optimizer.update(model, tree_map(lambda g: g / 4, total))
"""


@pytest.mark.parametrize("looks", [1, 20, 200])
@pytest.mark.parametrize("between", ["", "\nmodel = Model()\n"], ids=["the same model", "a new model"])
def test_a_loss_that_is_looked_at_before_training_is_none_of_it(captured, looks, between):
    text = MODEL + LOOKED_AT.format(looks) + between + LOOP
    script = captured(text)
    assert script.loop.seen.gradient[-1].line == line_of(text, "loss, grads = step(")
    assert not script_findings.findings(script)
    assert script.subject.updates == 500 and script.collects == 1
    assert any(f"the first {looks} gradient" in note and "passed over" in note for note in script.notes)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    script.subject.train_step(model, optimizer, script.batches[0])
    assert int(optimizer.step) == 1


WARMING = """
optimizer, gradient = optim.AdamW(1e-2, bias_correction=True), nn.value_and_grad(model, loss_fn)
def step(x, y):
    loss, grads = gradient(model, x, y)
    optimizer.update(model, grads)
    return loss
nought = mx.zeros((B, T), mx.int32)
for _ in range({}):
    mx.eval(step(nought, nought))  # warms up
for i in range(500):
    data = rows()
    step(data[:, :-1], data[:, 1:])  # trains
"""


@pytest.mark.parametrize("calls", [1, 3])
def test_a_step_that_is_compiled_on_noughts_is_none_of_the_training(captured, calls):
    text = MODEL + WARMING.format(calls)
    script = captured(text)
    assert line_of(text, "# trains") in {line.line for line in script.loop.seen.gradient}
    assert script.subject.updates == 500 and not script_findings.findings(script)
    assert all(batch[0].any() for batch in script.batches)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    script.subject.train_step(model, optimizer, script.batches[0])
    assert int(optimizer.step) == 1


def test_a_loop_before_another_is_a_training_of_its_own(captured):
    text = MODEL + WARMING.format(9).replace("nought, nought", "rows()[:, :-1], rows()[:, 1:]")
    script = captured(text)
    assert script.loop.spare == 0 and script.subject.updates == 9


@pytest.mark.parametrize("loop", [LOOP, ACCUMULATING], ids=["plain", "accumulating in two places"])
def test_a_gradient_that_an_update_is_made_of_stays(captured, loop):
    assert captured(MODEL + loop).loop.spare == 0


def test_a_loop_without_an_update_is_told_still(captured):
    script = captured(MODEL + LOOP.replace("optimizer.update(model, grads)", "print('taken')"))
    assert [finding.code for finding in script_findings.findings(script)] == ["no-update"]
    subject, taken = script.subject, Path(script.log).read_text().count("taken")
    for _ in range(3):
        subject.train_step(subject.model(), optim.SGD(0.1), script.batches[0])
    more = Path(script.log).read_text().count("taken") - taken
    assert more <= 64 + 2  # none waits for what never comes, once that is known


@pytest.mark.parametrize(("before", "told"), [("", False), ("model.eval()\n", True)])
def test_gradients_of_a_validation_between_updates_are_not_training_in_evaluation_mode(
    captured, before, told
):
    """Its loop is recorded up to one of them."""
    validated = LOOP + "    model.eval()\n    for _ in range(2): step(model, data[:, :-1], data[:, 1:])\n"
    if not told:
        validated = validated.replace("    loss, grads", "    model.train()\n    loss, grads")
    script = captured(MODEL.replace("model = Model()", "model = Model(0.1)") + before + validated)
    assert any("evaluation mode" in note for note in script.notes) == told
