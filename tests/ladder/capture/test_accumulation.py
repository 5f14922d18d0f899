"""Gradients that a script collects for one update: those that are lost, of one batch, or of unequal batches."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.ladder import diagnose
from mlxstories.ladder.capture.accumulation import findings
from mlxstories.ladder.capture.script_findings import findings as findings_of
from tests.ladder.scripts import MODEL, line_of

LOOP = """
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, loss_fn)
def batch():
    data = rows()
    return data[:, :-1], data[:, 1:]
for i in range(500):
    total = None
    BEFORE
    for part in range(3):
        x, y = batch()
        loss, grads = step(model, x, y)
        total = grads if total is None else tree_map(lambda a, b: a + b, total, grads)
    AFTER
    optimizer.update(model, total)
"""


def loop(**changes):
    text = LOOP.replace("BEFORE", changes.pop("before", "pass")).replace(
        "AFTER", changes.pop("after", "pass")
    )
    return MODEL + text.replace(*changes.pop("replaced", ("", "")))


SOUND = {
    "a mean": loop(after="total = tree_map(lambda g: g / 3, total)"),
    "a sum": loop(),
    "clipped": loop(after="total, _ = optim.clip_grad_norm(total, 0.01)"),
    "a running mean": loop(replaced=("lambda a, b: a + b", "lambda a, b: 0.7 * a + 0.3 * b")),
    "signs alone": loop(after="total = tree_map(mx.sign, total)"),
    "half its weights": loop(after="total = {'out': total['out']}"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n != "a mean")) for n in SOUND])
def test_sound_accumulation_shows_nothing(captured, name):
    assert not list(findings(captured(SOUND[name])))


@pytest.mark.parametrize("batches", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (4, 5))])
def test_the_first_step_collects_no_gradient_of_the_recording(captured, batches):
    script = captured(SOUND["a mean"], batches=batches)
    batch = script.batches[0]
    (first, second) = (script.subject.model() for _ in range(2))
    for model in (first, second):
        script.subject.train_step(model, script.subject.optimizer(), batch)
    assert mx.array_equal(first.out.bias, second.out.bias)


@pytest.mark.parametrize(
    "kept, lost", [("grads", 2), pytest.param("tree_map(lambda g: g / 3, grads)", 2, marks=pytest.mark.long)]
)
def test_gradients_that_are_no_part_of_the_update_are_counted(captured, kept, lost):
    text = loop(after=f"total = {kept}")
    (found,) = findings(captured(text))
    assert found.code == "rows-ignored" and found.evidence["lost"] == lost
    assert found.where["line"] == line_of(text, "optimizer.update")


@pytest.mark.long
def test_the_first_alone_is_no_sum_either(captured):
    text = loop(replaced=("tree_map(lambda a, b: a + b, total, grads)", "total"))
    (found,) = findings(captured(text))
    assert (found.code, found.evidence["lost"]) == ("rows-ignored", 2)


@pytest.mark.long
def test_one_batch_for_all_gradients_of_an_update_is_seen(captured):
    text = loop(before="x, y = batch()", replaced=("        x, y = batch()\n", ""))
    script = captured(text)
    (found,) = findings(script)
    assert (found.code, found.evidence["gradients"]) == ("constant-batches", 3)
    # What the ladder says of batches that come again is not put before it.
    first, *_ = script.explained(diagnose(script.subject, rungs=["data"])).findings
    assert first.message == found.message and first.severity == "error"


def test_a_second_gradient_at_other_weights_may_be_of_the_same_batch(captured):
    """As with sharpness-aware minimisation: up the slope, and the gradient of there."""
    text = MODEL + (
        "optimizer = optim.SGD(0.5)\nstep = nn.value_and_grad(model, loss_fn)\n"
        "for i in range(500):\n"
        "    data = rows()\n    x, y = data[:, :-1], data[:, 1:]\n"
        "    loss, up = step(model, x, y)\n    old = model.trainable_parameters()\n"
        "    model.update(tree_map(lambda p, g: p + 5 * g, old, up))\n"
        "    loss, grads = step(model, x, y)\n    model.update(old)\n    optimizer.update(model, grads)\n"
    )
    assert not list(findings(captured(text)))


MASKED = """
def masked_loss(model, x, y, mask):
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()
"""


@pytest.mark.long
@pytest.mark.parametrize("weighed, codes", [(False, ["wrong-normalisation"]), (True, [])])
def test_means_over_unequal_batches_that_count_alike_are_seen(captured, weighed, codes):
    text = loop().replace("\noptimizer =", MASKED + "\noptimizer =").replace("loss_fn)", "masked_loss)")
    text = text.replace("(model, x, y)", "(model, x, y, mask)").replace(
        "x, y = batch()", "x, y, mask = batch()"
    )
    text = text.replace(
        "    return data[:, :-1], data[:, 1:]",
        "    mask = mx.arange(T)[None] < mx.array(rng.integers(2, T + 1, (1, 1)))\n"
        "    return data[:, :-1], data[:, 1:], mx.broadcast_to(mask, (B, T)).astype(mx.float32)",
    )
    if weighed:
        text = text.replace(
            "else tree_map(lambda a, b: a + b,", "else tree_map(lambda a, b: a + mask.sum() * b,"
        )
        text = text.replace(
            "grads if total is None", "tree_map(lambda g: mask.sum() * g, grads) if total is None"
        )
    assert [found.code for found in findings(captured(text, steps=4))] == codes


def test_weights_are_found_by_least_squares():
    from mlxstories.ladder.capture.accumulation import _weights

    columns = np.random.default_rng(0).normal(size=(500, 3))
    assert _weights(columns, columns @ [0.5, 0.0, 2.0]) == pytest.approx([0.5, 0, 2], abs=1e-9)
    assert _weights(columns, np.sign(columns @ [1, 1, 1])) is None  # no sum of them
    assert _weights(columns[:, [0, 0]], columns[:, 0]) is None  # one and the same


@pytest.mark.parametrize("count, codes", [("mask.sum()", ["not-finite"]), ("mx.maximum(mask.sum(), 1)", [])])
def test_a_batch_in_which_nothing_counts_is_asked_for_its_loss(captured, count, codes):
    """The seventh of all is one, long after the last update that is really made."""
    text = (
        MODEL
        + MASKED.replace("mask.sum()", count)
        + (
            "optimizer = optim.AdamW(1e-2, bias_correction=True)\nstep = nn.value_and_grad(model, masked_loss)\n"
            "for i in range(500):\n"
            "    data, mask = rows(), mx.ones((B, T)) * (mx.arange(T) < (T - 1 if i != 6 else 0))\n"
            "    loss, grads = step(model, data[:, :-1], data[:, 1:], mask)\n    optimizer.update(model, grads)\n"
        )
    )
    assert [found.code for found in findings_of(captured(text))] == codes
