"""Validation inside the loop of a script: the losses it takes, and the figures that it prints of them."""

from __future__ import annotations

import sys

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.ladder.capture import recording
from mlxstories.ladder.capture.passes import following
from mlxstories.ladder.capture.printed_figures import numbers
from tests.ladder.scripts import LOOP, MODEL, line_of

HELD = """
held = [mx.array(rng.integers(1, V, (size, T + 1))) for size in (4, 4, 1)]
for data in held:
    data[0, 5:] = 0
"""
PLAIN = """
    if i % 40 == 30:
        losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]
        print(f"step {i}: val loss {sum(losses) / len(losses):.4f}")
"""
MASKED = """
def loss_fn(model, x, y):
    mask = y != 0
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()


def rows():
    data = mx.array(rng.integers(1, V, (B, T + 1)))
    data[1, 6:] = 0
    return data
"""
PER_TOKEN = """
    if i % 40 == 30:
        total = count = 0
        for data in held:
            x, y = data[:, :-1], data[:, 1:]
            total += (nn.losses.cross_entropy(model(x), y) * (y != 0)).sum().item()
            count += (y != 0).sum().item()
        print({"step": i, "eval_loss": round(total / count, 5), "perplexity": round(float(np.exp(total / count)), 4)})
"""


def reference(script, held, real):
    """Nats per token by numpy, of the weights that the script validates with."""
    nats, count = 0.0, 0
    for data in held:
        x, y = data[:, :-1], data[:, 1:]
        logits = np.array(script.loop.model(x)).astype(np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        cells = -np.take_along_axis(logits, np.array(y)[..., None], -1)[..., 0]
        kept = np.array(y) != 0 if real else np.ones(cells.shape, bool)
        nats, count = nats + cells[kept].sum(), count + kept.sum()
    return nats / count


# A comprehension is a frame of its own up to Python 3.11, and none since.
ONE_BY_ONE = """losses = []
        for data in held:
            losses.append(loss_fn(model, data[:, :-1], data[:, 1:]).item())"""
AT_ONCE = "losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]"


@pytest.mark.parametrize("way, line", [(AT_ONCE, "losses = ["), (ONE_BY_ONE, "losses.append(")])
def test_a_figure_printed_in_the_loop_is_matched(captured, way, line):
    held = "held = [rows() for _ in range(3)]\n"
    text = MODEL + held + LOOP + PLAIN.replace(AT_ONCE, way)
    script = captured(text)
    (match,) = script.validation_log.matches[:1]
    own = script.loop.script.names()["held"]
    assert match.way == "mean" and match.printed.value == pytest.approx(match.honest, abs=6e-5)
    assert match.honest == pytest.approx(reference(script, own, False), rel=1e-5)
    assert (
        len(match.passes) == 3
        and not script.validation_log.others
        and not list(script.validation_log.findings())
    )
    (note,) = [n for n in script.notes if "validation was seen" in n]
    assert f"train.py:{line_of(text, line)}" in note and "the mean per token of 3 losses, 96 tokens" in note


@pytest.mark.parametrize("often, codes", [("i % 8 == 0", ["metric-mismatch"]), ("i % 40 == 30", [])])
def test_the_same_part_of_a_mean_twice_is_no_chance(captured, often, codes):
    """As where validation is divided by the number of gradients that an update collects."""
    held = "held = [rows() for _ in range(3)]\n"
    divided = PLAIN.replace("i % 40 == 30", often).replace("/ len(losses)", "/ len(losses) / 4")
    found = list(captured(MODEL + held + LOOP + divided).validation_log.findings())
    assert [f.code for f in found] == codes
    assert not found or "divided by 4" in found[0].message


def test_the_mean_of_unequal_batches_is_an_error_with_its_line(captured):
    text = MODEL + HELD.replace("(4, 4, 1)", "(6, 6, 1)") + LOOP + PLAIN
    text = text.replace("data[0, 5:] = 0", "data[-1] = data[-1] // data.shape[0] ** 0")
    text = text.replace("model = Model()", "model = Model()\nmodel.out.weight *= 6")
    script = captured(text)
    (found,) = script.validation_log.findings()
    assert found.code == "metric-mismatch" and found.severity == "error"
    assert "mean of batch means" in found.message and found.where["line"] == line_of(text, "losses = [")


BY_HAND = """
def loss_fn(model, x, y):
    logits = model(x)
    mine = mx.take_along_axis(logits, y[..., None], axis=-1).squeeze(-1)
    return (mx.logsumexp(logits, axis=-1) - mine).mean()
"""


@pytest.mark.parametrize("sizes", ["(4, 4, 4)", "(6, 6, 1)"])
def test_a_cross_entropy_written_by_hand_is_matched_too(captured, sizes):
    held = HELD.replace("(4, 4, 1)", sizes).replace("data[0, 5:] = 0", "pass")
    text = (MODEL + BY_HAND + held + LOOP + PLAIN).replace(
        "model = Model()", "model = Model()\nmodel.out.weight *= 6"
    )
    script = captured(text)
    assert not script.validation_log.others and [len(m.passes) for m in script.validation_log.matches][
        :1
    ] == [3]
    own = script.loop.script.names()["held"]
    assert script.validation_log.matches[0].honest == pytest.approx(reference(script, own, False), rel=1e-5)
    found = list(script.validation_log.findings())
    assert [f.code for f in found] == ([] if "6" not in sizes else ["metric-mismatch"])
    assert all(f.where["line"] == line_of(text, "losses = [") for f in found)


def test_tokens_that_follow_are_found_among_what_is_at_hand():
    ids = mx.array([[1, 2, 3], [4, 5, 6]])

    def found(*values):
        near_by = list(values)  # noqa: F841  (looked at through the frame)
        got = following(sys._getframe(), ids)
        return None if got is None else got.tolist()

    assert found(mx.array([[2, 3, 9], [5, 6, 8]])) == [[2, 3, 9], [5, 6, 8]]
    assert found(mx.array([2, 3, 9, 5, 6, 8])) == [[2, 3, 9], [5, 6, 8]]
    assert found(np.array([[1, 2, 3, 9], [4, 5, 6, 8]])) == [[2, 3, 9], [5, 6, 8]]
    assert found(mx.array([[2, 3, -100], [5, -100, -100]])) == [[2, 3, -100], [5, -100, -100]]
    assert found(mx.array([[2, 3, 9], [5, 7, 8]])) is None
    assert found("text", None, [0] * 100) is None


def test_a_validation_over_padding_is_an_error(captured):
    loose = PLAIN.replace("loss_fn(model, data[:, :-1], data[:, 1:])", "plain(data)")
    plain = (
        "\ndef plain(data):\n    return nn.losses.cross_entropy(model(data[:, :-1]), data[:, 1:]).mean()\n\n"
    )
    held = HELD.replace("(4, 4, 1)", "(4, 4, 4)").replace("5:", "2:")
    script = captured(MODEL + MASKED + plain + held + LOOP + loose)
    (found,) = script.validation_log.findings()
    assert found.code == "padding-in-accuracy"


def test_a_validation_per_real_token_is_none(captured):
    script = captured(MODEL + MASKED + HELD + LOOP + PER_TOKEN)
    assert [m.way for m in script.validation_log.matches] == [
        "mean",
        "mean",
    ] and script.validation_log.matches[0].tokens == 9 * 8 - 3 * 4
    assert not list(script.validation_log.findings())
    own = script.loop.script.names()["held"]
    assert script.validation_log.matches[0].honest == pytest.approx(reference(script, own, True), rel=1e-5)


@pytest.mark.parametrize(
    ("often", "found"), [("i % 40 == 30", []), ("i % 8 == 0", [("metric-mismatch", "note")])]
)
def test_figures_of_something_else_are_a_note_where_they_are_so_twice(captured, often, found):
    text = MODEL + HELD + LOOP + PLAIN.replace("/ len(losses)", "/ len(losses) + 0.3")
    script = captured(text.replace("i % 40 == 30", often))
    assert script.validation_log.others and not script.validation_log.matches
    told = list(script.validation_log.findings())
    assert [(f.code, f.severity) for f in told] == found
    assert all(f.where["line"] == line_of(text, "losses = [") for f in told)
    assert all(f.evidence["printed"] - f.evidence["per_token"] > 0.2 for f in told)


IGNORED = """
def validated(x, y):
    nats = nn.losses.cross_entropy(model(x), mx.maximum(y, 0))
    counts = (y != -1).astype(mx.float32)
    return (nats * counts).sum() / {}
held = [mx.array(rng.integers(1, V, (4, T + 1))) for _ in range(3)]
for data in held:
    data[:, 4:] = -1
"""
CUT = IGNORED.replace("y):", "labels):\n    y = labels[:, 1:]").replace("(y, 0)", "(labels[:, 1:], 0)")


@pytest.mark.parametrize("way", [IGNORED, CUT], ids=["labels", "rows of one token more"])
@pytest.mark.parametrize(("by", "found"), [("counts.sum()", []), ("counts.size", ["padding-in-accuracy"])])
def test_labels_below_nought_say_what_counts_though_they_are_replaced(captured, way, by, found):
    """PyTorch's -100, or -1, of which MLX would make the last id."""
    call = (
        "validated(mx.maximum(data[:, :-1], 0), data[:, 1:])"
        if way is IGNORED
        else "validated(mx.maximum(data[:, :-1], 0), data)"
    )
    text = MODEL + way.format(by) + LOOP + PLAIN.replace("loss_fn(model, data[:, :-1], data[:, 1:])", call)
    script = captured(text)
    assert script.validation_log.matches and not script.validation_log.others
    assert [f.code for f in script.validation_log.findings()] == found
    assert script.validation_log.matches[0].tokens == 3 * 4 * 3


OF_NOTHING = """
    if i % 8 == 0:
        losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]
        print(f"Iter {i}: Val loss {mx.array(losses).mean().item():.3f}, Val took 0.01s")
"""


@pytest.mark.parametrize(("batches", "found"), [(0, [("not-finite", "note")]), (2, [])])
def test_a_validation_of_no_batches_is_a_note(captured, batches, found):
    """As `--val-batches -1` of mlx-examples was, which meant all of them."""
    text = MODEL + f"held = [rows() for _ in range({batches})]\n" + LOOP + OF_NOTHING
    assert [(f.code, f.severity) for f in captured(text).validation_log.findings()] == found


EPOCHS = """
optimizer, step = optim.AdamW(1e-2), nn.value_and_grad(model, loss_fn)
batches = [rows() for _ in range(30)]
for epoch in range(9):
    for data in batches:
        loss, grads = step(model, data[:, :-1], data[:, 1:])
        optimizer.update(model, grads)
    losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]
    print(f"Epoch {epoch} | train = {loss.item():.4f} | val = {sum(losses) / len(losses):.4f}")
"""


def test_validation_once_an_epoch_is_waited_for(captured):
    script = captured(MODEL + "held = [rows() for _ in range(3)]\n" + EPOCHS)
    assert [m.printed.label for m in script.validation_log.matches] == [
        "val"
    ] and script.loop.waiting is not None


def test_a_validation_without_end_is_cut_off_and_the_loop_goes_on(captured, monkeypatch):
    monkeypatch.setattr(recording, "_LATE", 1.0)
    endless = PLAIN.replace(
        "[loss_fn(", "[sum(loss_fn(model, data[:, :-1], data[:, 1:]).item() for _ in count()) + loss_fn("
    )
    text = "from itertools import count\n" + MODEL + "held = [rows() for _ in range(3)]\n" + LOOP + endless
    script = captured(text.replace("model = Model()", "model = Model(0.1)"))
    assert script.loop.waiting is not None and len(script.batches) == 16 and script.subject.updates == 500
    assert not any("evaluation mode" in note for note in script.notes)
    model = script.subject.model()
    assert np.isfinite(script.subject.train_step(model, script.subject.optimizer(), script.batches[0]).item())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("step 5: train loss 1.234, val loss 2.345 (0.51s)", [("val loss", 2.345, 5e-4)]),
        ("Epoch  1 | train = 1.2 | val = 2.34", [("val", 2.34, 5e-3)]),
        ('{"eval_loss": 2.5e-1, "eval_time": 1.5}', [("eval_loss", 0.25, 5e-3)]),
        ("interval 0.5, value 3.25, best val loss 1.25, validation took 1.5", []),
        (
            "  \x1b[38;5;244m   1\x1b[0m    \x1b[1;35mval\x1b[0m \x1b[1m5.959\x1b[0m",
            [("val", 5.959, 5e-4)],
        ),
        ('{"event": "val_step", "loss": 3.8691, "step": 20}', [("loss", 3.8691, 5e-5)]),
        ("Iter 1: Val loss 6.123, Val took 0.456s", [("Val loss", 6.123, 5e-4)]),
    ],
)
def test_figures_of_held_out_data_are_read_by_their_names(line, found):
    assert [(n.label, n.value, pytest.approx(n.half)) for n in numbers(line)] == found
