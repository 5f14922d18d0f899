"""Learning rates that a script sets by hand, and scripts with several optimisers."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories.ladder.capture import recording
from mlxstories.ladder.capture.script_findings import findings
from tests.ladder.scripts import MODEL, line_of

LOOP = """
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, loss_fn)
for i in range(N):
    data = rows()
    lr = RATE
    SET
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    optimizer.update(model, grads)
    mx.eval(model.state, optimizer.state)
"""
SET = "optimizer.learning_rate = lr"
WARM = "1e-2 * min(1.0, (i + 1) / 70)"


@pytest.mark.parametrize(
    ("updates", "rate", "heard", "told"),
    [
        (100, WARM, True, ("warmup-too-long", "error", 69)),  # 0.99 of 70 is reached at the 70th, number 69
        (200, WARM, True, None),
        (100, "1e-2 * max(0.0, 1 - i / 40)", True, ("schedule-out-of-step", "error", 40)),
        (100, "1e-2 * max(0.0, 1 - i / 75)", True, ("schedule-out-of-step", "warning", 75)),
        (100, "1e-2 * 0.5 * (1 + np.cos(np.pi * i / 99)).item()", True, None),
        (100, "1e-2 * 0.5 * (1 + np.cos(np.pi * (i % 10) / 10)).item()", True, None),  # with restarts
        (100, WARM, False, ("schedule-out-of-step", "error", None)),
        (100, "1e-2", False, None),
        (5000, WARM, True, None),
        (200, "float(optimizer.learning_rate) * min(1.0, i / 20)", True, ("no-update", "error", None)),
        (200, "1e-2 * min(1.0, i / 20)", True, None),  # only the first update is at 0
        (200, "1e-2 * (i >= 20)", True, ("no-update", "error", None)),
        (5000, "1e-2 * (i >= 20)", True, None),  # next to nothing of such a run
    ],
)
def test_a_rate_set_by_hand_is_held_against_the_run(captured, updates, rate, heard, told):
    text = MODEL + LOOP.replace("range(N)", f"range({updates})").replace("RATE", rate)
    text = text.replace("SET", SET if heard else "pass")
    found = list(findings(captured(text)))
    assert [(f.code, f.severity) for f in found] == ([told[:2]] if told else [])
    if told and told[2] is not None:
        start = found[0].evidence.get("warmup_steps", found[0].evidence.get("end"))
        assert start == pytest.approx(told[2], abs=1) and found[0].where["line"] == line_of(text, SET)
    elif told and told[0] == "no-update":
        assert found[0].where["line"] == line_of(text, SET)
    elif told:
        assert found[0].evidence["rate"] == pytest.approx(1e-2) and "stays at 0.01" in found[0].message


COUNTED = LOOP.replace("for i in range(N):", "i = 0\nwhile True:") + "    i += 1\n    if i > N: break\n"
COSINE = "1e-3 + 9e-3 * 0.5 * (1 + np.cos(np.pi * min(i, N) / N)).item()"


@pytest.mark.parametrize(
    ("updates", "rate", "told"),
    [
        (200, COSINE, []),
        (200, "1e-2 * min(1.0, (i + 1) / 10)", []),
        (200, f"({COSINE}) if i >= 20 else 1e-2 * (i + 1) / 20", []),
        (3000, COSINE, []),
        (100, WARM, [("warmup-too-long", "error")]),
    ],
)
def test_a_loop_that_counts_is_as_long_as_it_says(captured, updates, rate, told):
    text = MODEL + f"N = {updates}" + COUNTED.replace("RATE", rate).replace("SET", SET)
    script = captured(text)
    assert script.subject.updates == updates + 1
    assert [(f.code, f.severity) for f in findings(script)] == told


@pytest.mark.parametrize(
    ("then", "leaps"),
    [
        ("1e-2", False),
        ("1e-3", True),
        *(pytest.param(*more, marks=pytest.mark.long) for more in (("9e-3", False), ("1e-1", True))),
    ],
)
def test_a_warmup_by_hand_meets_what_follows(captured, then, leaps):
    function = f"def rate(i):\n    warm = 1e-2 * (i + 1) / 12\n    return warm if i < 12 else {then} * (1 - i / 4000)\n"
    text = MODEL + function + LOOP.replace("range(N)", "range(400)").replace("    lr = RATE\n", "")
    text = text.replace("SET", "optimizer.learning_rate = rate(i)")
    found = list(findings(captured(text)))
    assert [(f.code, f.severity) for f in found] == ([("schedule-out-of-step", "warning")] if leaps else [])
    if leaps:
        assert found[0].evidence["update"] == 11 and found[0].evidence["after"] == pytest.approx(
            float(then), 0.01
        )
        assert found[0].where["line"] == line_of(text, "return warm")


@pytest.mark.long
def test_a_loop_begun_anew_does_not_go_on_with_its_rates(captured):
    text = MODEL + LOOP.replace("range(N)", "range(400)").replace("RATE", WARM).replace("SET", SET)
    script = captured(text)
    rates = list(script.rates)
    assert script.loop.lead > 1
    script.loop.begin_again()
    assert script.rates == rates and not list(findings(script))


def test_a_warmup_is_followed_to_its_end_on_a_slow_machine_too(captured, monkeypatch):
    monkeypatch.setattr(recording, "_SECONDS", 0.0)
    text = MODEL + LOOP.replace("range(N)", "range(400)").replace("RATE", WARM).replace("SET", SET)
    script = captured(text)
    assert float(script.subject.optimizer().learning_rate) == pytest.approx(1e-2)
    assert len(script.losses) == 1  # the rest is passed at the speed of the data


@pytest.mark.long
def test_a_cosine_upside_down_begins_at_nothing_where_the_warmup_ends(captured):
    cosine = "5e-3 * (1 SIGN np.cos(np.pi * (i - 12) / 388)).item()"
    told = {}
    for sign in "+-":
        function = (
            f"def rate(i):\n    return 1e-2 * (i + 1) / 12 if i < 12 else {cosine.replace('SIGN', sign)}\n"
        )
        text = MODEL + function + LOOP.replace("range(N)", "range(400)").replace("    lr = RATE\n", "")
        found = list(findings(captured(text.replace("SET", "optimizer.learning_rate = rate(i)"))))
        told[sign] = [(f.code, f.severity, f.evidence["after"]) for f in found]
    assert told == {"+": [], "-": [("schedule-out-of-step", "warning", 0.0)]}


def test_a_rate_for_gradients_that_are_scaled_by_hand_is_none_of_the_optimiser_s(captured):
    text = MODEL + LOOP.replace("range(N)", "range(100)").replace("RATE", WARM).replace("SET", "pass")
    text = text.replace("optim.AdamW(1e-2)", "optim.SGD(1.0)")
    text = text.replace("update(model, grads)", "update(model, tree_map(lambda g: lr * g, grads))")
    assert not list(findings(captured(text)))


TWO = """
first, second = optim.FIRST, optim.SECOND
step = nn.value_and_grad(model, loss_fn)
for i in range(500):
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    first.update(model, {"embed": grads["embed"]})
    second.update(model, {"out": grads["out"]})
    mx.eval(model.state, first.state, second.state)
"""


@pytest.mark.parametrize("second", ["Adam(1e-2)", "AdamW(2e-2)"])
def test_two_optimisers_make_one_update_and_begin_together(captured, second):
    script = captured(MODEL + TWO.replace("FIRST", "Adam(1e-3)").replace("SECOND", second))
    assert script.subject.updates == 500 and [u.gradients for u in script.loop.seen.updates[:6]] == [1] * 6
    assert not list(findings(script))
    (note,) = [n for n in script.notes if "optimisers" in n]
    assert "the first, Adam, is examined" in note and "begun anew with it" in note
    trained = []
    for _ in range(2):  # from the same state, however long the other has trained
        model, optimizer = script.subject.model(), script.subject.optimizer()
        for batch in script.batches[:3]:
            script.subject.train_step(model, optimizer, batch)
        assert int(optimizer.step) == 3
        trained.append(dict(tree_flatten(model.parameters())))
    start = dict(tree_flatten(script.subject.model().parameters()))
    for name, array in trained[0].items():
        np.testing.assert_array_equal(np.array(array), np.array(trained[1][name]), err_msg=name)
    assert not mx.array_equal(start["out.weight"], trained[0]["out.weight"]).item()


@pytest.mark.parametrize(
    "update", ["first.update(model, grads)", "model.update(first.apply_gradients(grads, model))"]
)
def test_the_parts_of_a_multi_optimiser_keep_their_schedules(captured, update):
    text = MODEL + TWO.replace(
        "first, second = optim.FIRST, optim.SECOND", "first = optim.MultiOptimizer(PARTS)"
    )
    parts = (
        '[optim.Adam(optim.linear_schedule(0, 1e-2, 50)), optim.SGD(1e-2)], [lambda name, _: "embed" in name]'
    )
    text = text.replace("PARTS", parts).replace('first.update(model, {"embed": grads["embed"]})', update)
    text = text.replace('    second.update(model, {"out": grads["out"]})\n', "").replace(", second.state", "")
    script = captured(text)
    assert not list(findings(script)) and not any("optimisers" in note for note in script.notes)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    for batch in script.batches[:3]:
        script.subject.train_step(model, optimizer, batch)
    assert [int(part.step) for part in optimizer.optimizers] == [3, 3]
    assert float(optimizer.optimizers[0].learning_rate) == pytest.approx(2 / 50 * 1e-2)
