"""What a captured script itself shows, with its line."""

from __future__ import annotations

import json

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.ladder.capture.script_findings import failures
from mlxstories.ladder.capture.script_findings import findings as findings_of
from mlxstories.ladder.where.forward import begins, probe_of
from tests.ladder.scripts import LOOP, MODEL, line_of


def findings(script):
    return {f.code: f for f in findings_of(script)}


def test_a_sound_script_shows_nothing(captured):
    assert not findings(captured(MODEL + LOOP))


def test_a_new_optimizer_each_step_is_seen_with_its_line(captured):
    text = MODEL + LOOP.replace(
        "    optimizer.update", "    optimizer = optim.AdamW(1e-3)\n    optimizer.update"
    )
    found = findings(captured(text))["state-not-kept"]
    assert found.where["line"] == line_of(text, "optim.AdamW(1e-3)")


COMPILED = """
from functools import partial
optimizer = optim.AdamW(1e-3, bias_correction=True)
optimizer.init(model.trainable_parameters())
both = [model.state, optimizer.state]
held = INPUTS
@partial(mx.compile, inputs=held, outputs=both)
def step(x, y):
    loss, grads = nn.value_and_grad(model, loss_fn)(model, x, y)
    optimizer.update(model, grads)
    return loss
for i in range(500):
    data = rows()
    mx.eval(step(data[:, :-1], data[:, 1:]), both)
"""


@pytest.mark.parametrize(
    "inputs, dropout, codes",
    [
        ("both", 0.0, []),
        ("both + [mx.random.state]", 0.1, []),
        ("both", 0.1, ["stale-computation"]),
        ("[optimizer.state]", 0.0, ["stale-computation"]),
        ("[model.state]", 0.0, ["state-not-kept"]),
    ],
)
def test_what_a_compiled_step_does_not_list_is_seen(captured, inputs, dropout, codes):
    text = MODEL.replace("model = Model()", f"model = Model({dropout})") + COMPILED.replace("INPUTS", inputs)
    found = findings_of(captured(text))
    assert [finding.code for finding in found] == codes
    for finding in found:
        assert abs(finding.where["line"] - line_of(text, "@partial(mx.compile")) <= 1


SAVING = {
    "all": ("    mx.savez(f'{i}.npz', **dict(tree_flatten(model.parameters())))\n", None),
    "all, by the model": ("    model.save_weights(f'{i}.npz')\n", None),
    "two files": (
        "    p = dict(tree_flatten(model.parameters()))\n"
        "    mx.savez('a.npz', **{'embed.weight': p['embed.weight']})\n    del p['embed.weight']\n"
        "    mx.savez('b.npz', **p)\n",
        None,
    ),
    "one part alone": ("    mx.savez('a.npz', w=model.embed.weight)\n", None),
    "no biases": (
        "    p = tree_flatten(model.parameters())\n"
        "    mx.save_safetensors('a.safetensors', {n: a for n, a in p if 'weight' in n})\n",
        "out.bias",
    ),
}


@pytest.mark.parametrize("name", SAVING)
def test_a_checkpoint_that_leaves_weights_out_is_seen_with_its_line(captured, name):
    text, missing = MODEL + LOOP + SAVING[name][0], SAVING[name][1]
    found = findings_of(captured(text))
    assert [f.evidence["missing"] for f in found] == ([[missing]] if missing else [])
    assert not found or found[0].where["line"] == line_of(text, "mx.save_safetensors")


def test_gradients_without_an_update_are_seen(captured):
    text = MODEL + LOOP.replace("    optimizer.update(model, grads)\n", "")
    found = findings(captured(text, steps=8))["no-update"]
    assert abs(found.where["line"] - line_of(text, "grads = step(")) <= 1


SCHEDULE = """
optimizer = optim.AdamW(1e-2, bias_correction=True)
step = nn.value_and_grad(model, loss_fn)
total = None
for i in range(4 * 30):
    optimizer.learning_rate = 1e-2 * max(0.1, 1 - STEP / LAST)
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    total = grads if total is None else tree_map(lambda a, b: a + b, total, grads)
    if i % 4 == 3:
        optimizer.update(model, tree_map(lambda g: g / 4, total))
        total = None
"""


@pytest.mark.parametrize(
    "step, last, severity",
    [
        ("i", 30, "error"),
        pytest.param("i // 4", 4, "warning", marks=pytest.mark.long),
        ("i // 4", 30, None),
        pytest.param("0", 30, None, marks=pytest.mark.long),
    ],
)
def test_a_rate_set_by_hand_that_ends_early_is_seen(captured, step, last, severity):
    """The first gradient is taken before the loop, for its shapes."""
    text = MODEL + SCHEDULE.replace("total = None", "step(model, *[rows()[:, 1:]] * 2)\ntotal = None", 1)
    text = text.replace("STEP", step).replace("LAST", str(last))
    found = [f for f in findings_of(captured(text, batches=160)) if f.code == "schedule-out-of-step"]
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert not found or found[0].where["line"] == line_of(text, "optimizer.learning_rate =")


def test_dropout_in_validation_is_seen_with_its_line(captured):
    text = (
        MODEL.replace("model = Model()", "model = Model(0.5)")
        + "held = rows()\ndef validate():\n    return loss_fn(model, held[:, :-1], held[:, 1:]).item()\n"
        + LOOP
        + "    validate()\n"
    )
    found = findings(captured(text))["dropout-in-evaluation"]
    assert found.where["line"] == line_of(text, "return loss_fn(model, held")
    mended = text.replace("    validate()\n", "    model.eval(); validate(); model.train()\n")
    assert not findings(captured(mended))


BEHIND = """
held = [rows() for _ in range(4)]
losses = [loss_fn(model, data[:, :-1], data[:, 1:]).item() for data in held]
print(f"final validation loss {sum(losses) / len(losses):.4f}")
"""


@pytest.mark.parametrize(
    ("right", "wrong", "severity"),
    [
        ("", "", ["note"]),
        ("held = [", "model.eval()\nheld = [", []),
        ("held = [", "model.train(False)\nheld = [", []),
        ("validation loss", "loss", []),
        ("Model(0.5)", "Model(0.0)", []),
    ],
)
def test_dropout_that_nothing_switches_off_is_noted_where_validation_is_not_come_to(
    captured, right, wrong, severity
):
    text = MODEL.replace("model = Model()", "model = Model(0.5)") + LOOP + BEHIND.replace("held", "rest")
    text = text.replace(right.replace("held", "rest"), wrong.replace("held", "rest"))
    found = findings_of(captured(text))
    assert [(f.code, f.severity) for f in found] == [("dropout-in-evaluation", s) for s in severity]
    assert not found or found[0].where["line"] == line_of(text, "final validation loss")


def test_dropout_that_heeds_an_argument_of_its_own_is_off_in_validation(captured):
    guarded = MODEL.replace("model = Model()", "model = Model(0.5)").replace(
        "def __call__(self, ids):", "def __call__(self, ids, training=True):"
    )
    guarded = guarded.replace("self.drop(x + mx.tanh(before))", "(self.drop if training else mx.array)(x)")
    text = guarded + "held = rows()\n" + LOOP + "    mx.eval(model(held[:, :-1], training=False))\n"
    assert not findings(captured(text))
    assert "dropout-in-evaluation" in findings(captured(text.replace(", training=False", "")))


def test_decoding_from_the_wrong_position_is_seen(captured):
    told = """
def tell(ids, n):
    for _ in range(n):
        logits = model(mx.array([ids]))
        ids = ids + [int(mx.argmax(logits[0, -1]))]
"""
    text = MODEL + told + LOOP + "    tell([1, 2, 3], 6)\n"
    assert not findings(captured(text))
    wrong = text.replace("logits[0, -1]", "logits[0, 0]")
    found = findings(captured(wrong))["generation-mismatch"]
    assert found.where["line"] == line_of(wrong, "logits = model(")


def test_a_decoding_of_a_prompt_of_its_own_is_not_the_one_that_is_called_again(captured):
    """Where the model says the same whatever it reads, its tokens fit any prompt."""
    told = """
model.out.bias = 6 * mx.eye(V)[3]
model.freeze(keys=["bias"])


def tell(ids, n):
    for _ in range(n):
        ids = ids + [int(mx.argmax(model(mx.array([ids]))[0, -1]))]


def show():
    tell([1, 2, 3], 6)
"""
    assert captured(MODEL + told + LOOP + "    show()\n").decoding is None
    varied = captured(MODEL + told.replace("6 *", "0 *") + LOOP + "    show()\n").decoding
    assert varied.called.line.function == "tell"


class Attention(nn.Module):
    def __init__(self, strength):
        super().__init__()
        self.q, self.strength = nn.Linear(8, 8), strength

    def __call__(self, x):
        q = self.q(x)
        scores = q @ x.swapaxes(1, 2)
        above = mx.triu(mx.ones((x.shape[1], x.shape[1])), k=1)
        scores = scores - self.strength * above  # here
        mixed = mx.softmax(scores, axis=-1) @ x
        return x + mixed


class Reader(nn.Module):
    def __init__(self, *strengths):
        super().__init__()
        self.embed, self.out = nn.Embedding(12, 8), nn.Linear(8, 12)
        self.layers = [Attention(strength) for strength in strengths]

    def __call__(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def test_a_leak_is_followed_to_its_module_and_line():
    ids = np.random.default_rng(0).integers(0, 12, (2, 10))

    def leak(model):
        return begins(model, probe_of("future", ids, model))

    assert leak(Reader(1e9, 1e9)) is None
    found = leak(Reader(1e9, 2.0))
    with open(__file__) as source:
        assert found["line"] == line_of(source.read(), "# here")
    assert found["module"] == "layers.1"


def test_debug_climbs_on_a_script_and_says_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = MODEL + LOOP.replace("data = rows()", "data = first").replace(
        "step = nn", "first = rows()\nstep = nn"
    )
    (tmp_path / "train.py").write_text("import sys\nassert sys.argv[1:] == ['--size', '3']\n" + text)
    options = ["--rung", "data", "--json", "report.json"]
    result = CliRunner().invoke(main, ["debug", *options, "train.py", "--", "--size", "3"])
    assert result.exit_code == 1, result.output
    first = json.loads((tmp_path / "report.json").read_text())["findings"][0]
    assert first["code"] == "constant-batches" and first["where"]["file"].endswith("train.py")
    assert abs(first["where"]["line"] - 2 - line_of(text, "data = first")) <= 2
    assert "constant-batches at train.py:" in result.output


def test_debug_takes_a_module_with_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(MODEL)
    (package / "train.py").write_text(
        f"from pkg.model import *\nassert sys.argv[1:] == ['--steps', '9'] and T == 7\n{LOOP}"
    )
    result = CliRunner().invoke(
        main, ["debug", "--rung", "data", "--set", "T=7", "-m", "pkg.train", "--", "--steps", "9"]
    )
    assert result.exit_code == 0, result.output
    assert "pkg.train: no error on the rungs climbed" in result.output


FAILS = "np.array(mx.ones(2, mx.bfloat16))  # numpy knows no such type\n"


@pytest.mark.parametrize(
    ("rounds", "behind"),
    [
        ("12", FAILS),
        ("500", f"    if i == 20: {FAILS}"),
        ("500", f"    mx.eval(loss)\n    if i == 14: {FAILS}"),
    ],
)
def test_what_fails_behind_an_update_is_told_with_its_line_and_the_climb_goes_on(captured, rounds, behind):
    text = MODEL + LOOP.replace("range(500)", f"range({rounds})") + behind
    script = captured(text)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    for batch in script.batches * 2:
        script.subject.train_step(model, optimizer, batch)
    (told,) = failures(script)
    assert (told.code, told.severity) == ("subject-error", "warning")
    assert told.where["line"] == line_of(text, "knows no such type") and "PEP 3118" in told.message


def test_what_fails_behind_an_update_by_hand_is_told_too(captured):
    by_hand = "    for name, g in tree_flatten(grads): set_by(model, name, g)\n"
    setting = """
def set_by(module, name, g):
    *path, last = name.split(".")
    for part in path: module = module[part]
    module[last] = module[last] - 0.1 * g
"""
    text = (
        MODEL
        + setting
        + LOOP.replace("    optimizer.update(model, grads)\n", by_hand)
        + f"    if i == 20: {FAILS}"
    )
    script = captured(text.replace("range(500)", "range(21)"))
    model = script.subject.model()
    for batch in script.batches:
        script.subject.train_step(model, optim.SGD(0.1), batch)
    assert [told.code for told in failures(script)] == ["subject-error"]


@pytest.mark.parametrize("guard", ["not loss.item() < 20", "loss.item() > 3 * first"])
def test_a_guard_against_a_loss_that_runs_away_is_no_failure(captured, guard):
    text = (
        MODEL
        + LOOP
        + f"    first = loss.item() if i == 0 else first\n    if {guard}: raise ValueError('diverged')\n"
    )
    script = captured(text)
    model, optimizer = script.subject.model(), optim.AdamW(100.0, bias_correction=True)
    for batch in script.batches:
        script.subject.train_step(model, optimizer, batch)
    assert script.loop.failed and not failures(script)


def test_what_fails_before_its_update_fails_the_step(captured):
    script = captured(MODEL + LOOP.replace("    optimizer.update", "    assert i < 18\n    optimizer.update"))
    model, optimizer = script.subject.model(), script.subject.optimizer()
    with pytest.raises(AssertionError):
        for batch in script.batches:
            script.subject.train_step(model, optimizer, batch)
