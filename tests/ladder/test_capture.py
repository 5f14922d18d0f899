"""Training scripts as they are: captured under watch, climbed on, and everything left as it was found."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.ladder import load_subject
from mlxstories.ladder.bench.arrays import Answers
from mlxstories.ladder.bench.optimizers import read_schedule
from mlxstories.ladder.capture import CapturedScript, defines
from mlxstories.ladder.capture.optimizers import Shell
from mlxstories.ladder.capture.seen import findings as findings_of
from mlxstories.ladder.where.forward import begins, probe_of
from mlxstories.storage.files import scratch

T, B = 8, 4  # of MODEL
MODEL = """
import json, os, random, sys
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

V, T, B = 12, 8, 4


class Model(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed, self.out = nn.Embedding(V, 16), nn.Linear(16, V)
        self.drop = nn.Dropout(dropout)

    def __call__(self, ids):
        x = self.embed(ids)
        before = mx.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        return self.out(self.drop(x + mx.tanh(before)))


rng = np.random.default_rng(0)


def rows():
    return mx.array(rng.integers(1, V, (B, T + 1)))


def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


mx.random.seed(0)
model = Model()
"""
LOOP = """
optimizer = optim.AdamW(1e-2, bias_correction=True)
step = nn.value_and_grad(model, loss_fn)
for i in range(500):
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    optimizer.update(model, grads)
    mx.eval(model.state, optimizer.state)
"""


@pytest.fixture
def captured(tmp_path, monkeypatch):
    """Capture a script of this text, in its folder."""
    scripts = []
    monkeypatch.chdir(tmp_path)

    def capture(text, *argv, **options):
        (tmp_path / "train.py").write_text(text)
        scripts.append(CapturedScript("train.py", argv, **{"steps": 3, "batches": 16, **options}))
        return scripts[-1]

    yield capture
    for script in scripts:
        script.close()


def line_of(text, part):
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def flat(model):
    return {name: np.array(array) for name, array in tree_flatten(model.parameters())}


EPOCHS = """
optimizer, step, size, every = optim.SGD(0.1), nn.value_and_grad(model, loss_fn), 60, 3
batches = [rows() for _ in range(size // 3)]
for epoch in range(5):
    for i, data in enumerate(batches):
        total = None
        for part in range(every):
            loss, grads = step(model, data[:, :-1], data[:, 1:])
            total = grads if total is None else tree_map(mx.add, total, grads)
        optimizer.update(model, total)
"""


@pytest.mark.parametrize(
    ("loop", "updates"),
    [
        (LOOP, 500),
        (EPOCHS, 5 * 20),
        (LOOP.replace("range(500)", "range(2 * len(rng.bytes(50)))"), None),  # made by a call
        (LOOP.replace("    data =", "    if i == 90:\n        break\n    data ="), None),
        (LOOP.replace("    data =", "    if i == 9:\n        break\n    data ="), 9),  # seen to its end
        (LOOP.replace("for i in range(500):", "while True:"), None),
        (LOOP.replace("range(500)", "range(7)"), 7),
    ],
)
def test_updates_are_read_from_the_loops(captured, loop, updates):
    assert captured(MODEL + loop).subject.updates == updates


def test_what_a_file_defines_is_read_without_running_it(tmp_path):
    file = tmp_path / "setup.py"
    for text in (
        "def subject():\n    return 1",
        "from a import b as subject",
        "if 1:\n    subject = 3",
        "def (",
    ):
        file.write_text(text)
        assert defines(file, "subject")
    for text in ("raise SystemExit", "def f():\n    subject = 1", "print(subject)"):
        file.write_text(text)
        assert not defines(file, "subject")


STYLES = {
    "arguments": LOOP,
    "captured variables": """
optimizer = optim.SGD(1e-2)
for i in range(500):
    data = rows()
    x, y = data[:, :-1], data[:, 1:]
    def objective(m):
        return nn.losses.cross_entropy(m(x).reshape(-1, V), y.reshape(-1)).mean()
    loss, grads = nn.value_and_grad(model, objective)(model)
    optimizer.update(model, grads)
""",
    "tokens cut inside, by hand, with a count": """
def objective(tokens):
    logits, y = model(tokens[:, :-1]), tokens[:, 1:]
    nats = mx.logsumexp(logits, -1) - mx.take_along_axis(logits, y[..., None], -1)[..., 0]
    return nats.mean(), nats.size
optimizer = optim.Lion(1e-3)
step = nn.value_and_grad(model, objective)
for i in range(500):
    (loss, count), grads = step(rows())
    optimizer.update(model, grads)
""",
    "dicts, compiled": """
optimizer = optim.Adam(optim.cosine_decay(1e-2, 400), bias_correction=True)
state = [model.state, optimizer.state]
def objective(model, batch):
    nats = nn.losses.cross_entropy(model(batch["ids"]), batch["labels"])
    return (nats * batch["mask"]).sum() / batch["mask"].sum()
@mx.compile
def step(batch):
    loss, grads = nn.value_and_grad(model, objective)(model, batch)
    optimizer.update(model, grads)
    return loss
for i in range(500):
    data = rows()
    step({"ids": data[:, :-1], "labels": data[:, 1:], "mask": mx.ones((B, T))})
""",
    "a tree of parameters": """
def objective(params, x, y):
    model.update(params)
    return loss_fn(model, x, y)
optimizer = optim.AdamW(1e-2)
for i in range(500):
    data = rows()
    loss, grads = mx.value_and_grad(objective)(model.trainable_parameters(), data[:, :-1], data[:, 1:])
    model.update(optimizer.apply_gradients(grads, model.trainable_parameters()))
""",
    "gradients alone, updates by hand": """
def objective(params, x, y):
    model.update(params)
    return loss_fn(model, x, y)
for i in range(500):
    data = rows()
    grads = mx.grad(objective)(model.trainable_parameters(), data[:, :-1], data[:, 1:])
    model.update(tree_map(lambda p, g: p - 0.1 * g, model.trainable_parameters(), grads))
""",
}


def test_the_script_s_loss_can_be_asked_about_logits_that_are_known(captured):
    script = captured(MODEL + LOOP)
    logits, y = mx.random.normal((4, 8, 12)), mx.array(script.batches[3][1])
    stub, before = Answers(logits), flat(script.loop.model)
    loss = script.subject.loss(stub, script.batches[3])
    assert loss.item() == pytest.approx(nn.losses.cross_entropy(logits, y).mean().item(), rel=1e-6)
    # And the gradient at them is that of a cross-entropy: p - 1 at the target.
    gradient = nn.value_and_grad(stub, lambda m: script.subject.loss(m, script.batches[3]))(stub)[1]["logits"]
    right = (mx.softmax(logits, -1) - (y[..., None] == mx.arange(12))) / 32
    assert mx.allclose(gradient, right, atol=1e-6)
    assert all((value == before[name]).all() for name, value in flat(script.loop.model).items())


INSIDE = {
    "beside the logits": "return (logits, None) if y is None else (logits, self.nats(logits, y))",
    "alone": "return logits if y is None else self.nats(logits, y)",
    "beside logits in a row": "return (logits, 0) if y is None else (logits.reshape(-1, V), self.nats(logits, y))",
}


@pytest.mark.parametrize("returned", INSIDE)
def test_a_model_may_take_its_loss_itself(captured, returned):
    text = MODEL.replace("def __call__(self, ids)", "def __call__(self, ids, y=None)").replace(
        "return self.out(self.drop(x + mx.tanh(before)))",
        f"logits = self.out(self.drop(x + mx.tanh(before)))\n        {INSIDE[returned]}\n\n"
        "    def nats(self, logits, y):\n"
        "        return nn.losses.cross_entropy(logits.reshape(-1, V), y.reshape(-1)).mean()",
    )
    text = text.replace('nn.losses.cross_entropy(model(x), y, reduction="mean")', "out(model(x, y))")
    text += "def out(got):\n    return got[1] if isinstance(got, tuple) else got\n"
    script = captured(text + LOOP)
    rng = np.random.default_rng(0)
    for batch in script.batches:
        rows = rng.integers(1, 12, (4, 9))
        assert (batch[0] == rows[:, :-1]).all() and (batch[1] == rows[:, 1:]).all()
    model, (x, y) = script.subject.model(), map(mx.array, script.batches[5][:2])
    logits = model(x) if returned == "alone" else model(x)[0]
    ours = nn.losses.cross_entropy(logits, y, reduction="mean").item()
    assert float(script.subject.loss(model, script.batches[5])) == pytest.approx(ours, rel=1e-5)
    assert script.roles.first.line.line == line_of(text, "nn.losses.cross_entropy(logits.reshape")


@pytest.mark.parametrize("style", STYLES)
def test_batches_loss_and_step_are_the_script_s_own(captured, style):
    script = captured(MODEL + STYLES[style])
    subject, rng = script.subject, np.random.default_rng(0)
    for batch in script.batches:
        rows = rng.integers(1, 12, (4, 9))
        assert (batch[0] == rows[:, :-1]).all() and (batch[1] == rows[:, 1:]).all()
    model, batch = subject.model(), script.batches[5]

    def mean(model):
        return nn.losses.cross_entropy(model(mx.array(batch[0])), mx.array(batch[1]), reduction="mean")

    assert subject.vocab_size == 12
    assert float(subject.loss(model, batch)) == pytest.approx(float(mean(model)), rel=1e-4)
    # Its own loop follows the batch that the ladder hands it, from the ladder's own weights.
    optimizer = subject.optimizer() if subject.optimizer else optim.SGD(0.1)
    before = flat(model)
    assert float(subject.train_step(model, optimizer, batch)) == pytest.approx(np.log(12), abs=1.5)
    assert any((before[name] != value).any() for name, value in flat(model).items())
    for _ in range(25):
        last = float(subject.train_step(model, optimizer, batch))
    assert last < float(mean(subject.model()))


def test_a_step_is_the_script_s_update_on_the_ladder_s_batch(captured):
    script = captured(MODEL + LOOP)
    model, other = script.subject.model(), script.subject.model()
    theirs, ours = script.subject.optimizer(), optim.AdamW(1e-2, bias_correction=True)
    for batch in script.batches[3:6]:
        script.subject.train_step(model, theirs, batch)
        _, gradients = nn.value_and_grad(other, lambda m, b=batch: script.subject.loss(m, b))(other)
        ours.update(other, gradients)
    for name, value in flat(model).items():
        np.testing.assert_allclose(value, flat(other)[name], rtol=1e-4, atol=1e-6)
    assert int(theirs.step) == 3


MASKS = {
    "lengths": ("mx.arange(1, y.shape[1] + 1)[None] < lengths[:, None]", "lengths"),
    "spans, as in mlx-lm": (
        "(mx.arange(1, T + 1)[None] >= lengths[:, :1]) & (mx.arange(1, T + 1)[None] < lengths[:, 1:])",
        "np.stack([0 * lengths, lengths], 1)",
    ),
}


@pytest.mark.parametrize("form", MASKS)
def test_a_masked_loss_tells_its_mask_and_lengths_follow(captured, form):
    mask, handed = MASKS[form]
    text = (
        MODEL
        + """
def objective(model, batch, lengths):
    x, y = batch[:, :-1], batch[:, 1:]
    mask = MASK
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, objective)
for i in range(500):
    lengths = rng.integers(3, T + 1, B)
    data = np.array(rows()) * (np.arange(T + 1)[None] < lengths[:, None])
    loss, grads = step(model, mx.array(data), mx.array(HANDED))
    optimizer.update(model, grads)
"""
    )
    script = captured(text.replace("MASK", mask).replace("HANDED", handed))
    inputs, targets, mask = script.batches[2]
    assert ((targets != 0) == (mask > 0)).all()
    part = inputs[:2], targets[:2], mask[:2]
    model = script.subject.model()
    nats = nn.losses.cross_entropy(model(mx.array(part[0])), mx.array(part[1])) * mx.array(part[2])
    assert float(script.subject.loss(model, part)) == pytest.approx(
        float(nats.sum()) / part[2].sum(), rel=1e-4
    )


@pytest.mark.parametrize(("padding", "whole"), [(0, False), (11, False), (11, True)])
def test_a_loss_that_looks_for_its_padding_finds_it_in_the_targets(captured, padding, whole):
    masked = """
def loss_fn(model, x, y):
    mask = y != PAD
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()


def rows():
    data = rng.integers(1, V - 1, (B, T + 1))
    data[1, 6:] = PAD
    return mx.array(data)
"""
    text = MODEL + masked.replace("PAD", str(padding)) + LOOP
    if whole:  # rows of T + 1 are handed over, and cut in the loss
        text = text.replace(
            "loss_fn(model, x, y):\n    mask", "loss_fn(model, z):\n    x, y = z[:, :-1], z[:, 1:]\n    mask"
        )
        text = text.replace("step(model, data[:, :-1], data[:, 1:])", "step(model, data)")
    script = captured(text)
    inputs, targets, mask = script.batches[1]
    assert script.roles.padding == padding and ((targets != padding) == (mask > 0)).all() and not mask.all()
    model = script.subject.model()
    nats = np.array(nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)))[mask > 0]
    assert float(script.subject.loss(model, script.batches[1])) == pytest.approx(nats.mean(), rel=1e-4)
    assert set(script.roles.places.values()) == ({"tokens"} if whole else {"inputs", "targets"})
    drawn = np.where(mask > 0, targets, 5)  # what the ladder draws at cells that do not count
    assert float(script.subject.loss(model, (inputs, drawn, mask))) == pytest.approx(nats.mean(), rel=1e-4)
    fewer = mask * (np.arange(T) < 3)  # what it leaves out of rows of its own
    nats = np.array(nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)))[fewer > 0]
    assert float(script.subject.loss(model, (inputs, drawn, fewer))) == pytest.approx(nats.mean(), rel=1e-4)


CUT = """
def objective(model, batch, spans):
    x, y = batch[:, :-1], batch[:, 1:]
    steps = mx.arange(1, T + 1)[None]
    mask = (steps >= spans[:, :1]) & (steps <= spans[:, 1:])
    return (nn.losses.cross_entropy(model(x), y) * mask).sum() / mask.sum()


optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, objective)
for i in range(500):
    lengths = np.full(B, T + 1) if i == 0 else rng.integers(3, T + 2, B)
    data = np.array(rows()) * (np.arange(T + 1)[None] <= lengths[:, None])
    loss, grads = step(model, mx.array(data), mx.array(np.stack([0 * lengths, lengths], 1)))
    optimizer.update(model, grads)
"""


def test_spans_beyond_the_end_of_rows_that_are_cut_are_understood(captured):
    script = captured(MODEL + CUT)  # as mlx-lm cuts them, and the first batch has no shorter row
    for _, targets, mask in script.batches:
        assert ((targets != 0) <= (mask > 0)).all() and ((mask > 0).sum(1) >= 3).all()
    inputs, targets, mask = script.batches[0]
    assert mask.all() and not script.batches[1][2].all()
    mask = np.tile(np.arange(T) < 4, (B, 1)).astype(np.float32)
    model, changed = script.subject.model(), inputs.copy()
    changed[:, 5:] = 1 + changed[:, 5:] % 11  # of the tokens, the fifth is a target
    losses = [float(script.subject.loss(model, (x, targets, mask))) for x in (inputs, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("left_out", [0, -1])
def test_a_target_that_tells_what_counts_stands_wherever_nothing_does(captured, left_out):
    text = MODEL.replace(
        'nn.losses.cross_entropy(model(x), y, reduction="mean")',
        "(nn.losses.cross_entropy(model(x), mx.maximum(y, 0)) * (y != OUT)).sum() / (y != OUT).sum()",
    )
    loop = LOOP.replace(
        "data = rows()", "data = rows()\n    y = mx.where(mx.arange(T) < 5, data[:, 1:], OUT)"
    )
    script = captured((text + loop.replace("data[:, 1:])", "y)")).replace("OUT", str(left_out)))
    inputs, targets, mask = script.batches[1]
    assert not mask[:, 5:].any() and mask[:, :5].all()
    model, changed = script.subject.model(), np.where(mask > 0, targets, 3)
    losses = [float(script.subject.loss(model, (inputs, y, mask))) for y in (targets, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_rows_in_which_nothing_counts_are_understood(captured):
    """As where a prompt fills a row, and its answer is cut off."""
    script = captured(MODEL + CUT.replace("0 * lengths", "np.where(np.arange(B) == 1, T + 3, 2)"))
    assert all(mask[0].any() and not mask[1].any() for _, _, mask in script.batches)
    inputs, targets, mask = (part[:2] for part in script.batches[2])
    model = script.subject.model()
    nats = nn.losses.cross_entropy(model(mx.array(inputs)), mx.array(targets)) * mx.array(mask)
    own = script.subject.loss(model, (inputs, targets, mask))
    assert float(own) == pytest.approx(float(nats.sum()) / mask.sum(), rel=1e-5)


def test_targets_that_are_the_inputs_are_captured(captured):
    script = captured(MODEL + LOOP.replace("data[:, 1:])", "mx.array(data[:, :-1]))"))
    assert (script.batches[1][0] == script.batches[1][1]).all()
    model, batch = script.subject.model(), tuple(np.random.default_rng(3).integers(0, 12, (2, B, T)))
    wanted = nn.losses.cross_entropy(model(mx.array(batch[0])), mx.array(batch[1])).mean()
    assert float(script.subject.loss(model, batch)) == pytest.approx(float(wanted), rel=1e-5)


def test_a_gpu_that_is_not_there_is_not_asked_for(captured):
    limits = 'mx.set_wired_limit(mx.device_info()["max_recommended_working_set_size"])\n'
    script = captured(MODEL + limits + "mx.set_default_device(mx.gpu)\n" + LOOP)
    assert len(script.batches) == 16
    assert "max_recommended_working_set_size" not in mx.device_info(mx.cpu)


def test_accumulation_and_a_rate_set_by_hand(captured):
    text = (
        MODEL
        + """
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, loss_fn)
for i in range(500):
    total = None
    for _ in range(2):
        data = rows()
        loss, grads = step(model, data[:, :-1], data[:, 1:])
        total = grads if total is None else tree_map(mx.add, total, grads)
    optimizer.learning_rate = 1e-2 * min(1, (i + 1) / 5)
    optimizer.update(model, total)
"""
    )
    script = captured(text)
    assert {update.gradients for update in script.loop.seen.updates} == {2}
    assert float(script.subject.optimizer().learning_rate) == pytest.approx(1e-2)


def test_an_optimizer_of_one_s_own_and_a_loop_that_ends_go_on(captured):
    text = (
        MODEL
        + """
class Momentum:
    def __init__(self, lr):
        self.lr, self.v = lr, {}
    def update(self, model, grads):
        for k, g in tree_flatten(grads):
            self.v[k] = 0.9 * self.v.get(k, 0) + g
        now = dict(tree_flatten(model.parameters()))
        model.load_weights([(k, now[k] - self.lr * v) for k, v in self.v.items()])
mine = Momentum(0.05)
step = nn.value_and_grad(model, loss_fn)
for i in range(20):
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    mine.update(model, grads)
"""
    )
    script = captured(text)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    losses = [float(script.subject.train_step(model, optimizer, script.batches[0])) for _ in range(40)]
    assert losses[-1] < losses[0] - 0.5


def test_an_optimizer_that_sets_the_weights_itself_is_seen_to_update(captured):
    script = captured(
        MODEL
        + """
class Descent:
    def __init__(self):
        self.lr = 0.2

    def update(self, model, grads):
        model.embed.weight = model.embed.weight - self.lr * grads["embed"]["weight"]
        model.out.weight = model.out.weight - self.lr * grads["out"]["weight"]
        model.out.bias = model.out.bias - self.lr * grads["out"]["bias"]


optimizer = Descent()
for i in range(500):
    total = None
    for part in range(2):
        data = rows()
        loss, grads = nn.value_and_grad(model, loss_fn)(model, data[:, :-1], data[:, 1:])
        total = grads if total is None else tree_map(lambda a, b: (a + b) / 2, total, grads)
    optimizer.update(model, total)
"""
    )
    assert [update.gradients for update in script.loop.seen.updates[:3]] == [2, 2, 2]
    assert not findings(script)
    model, optimizer, batch = script.subject.model(), script.subject.optimizer(), script.batches[0][:2]
    before = model.out.bias
    gradient = nn.value_and_grad(model, lambda m: script.subject.loss(m, batch))(model)[1]
    script.subject.train_step(model, optimizer, batch)
    assert mx.allclose(model.out.bias, before - 0.2 * gradient["out"]["bias"], atol=1e-6)


def test_an_optimizer_without_a_rate_has_no_schedule():
    shell = Shell(type("Own", (), {"groups": [{"lr": 0.1}], "update": print})())
    curve = read_schedule(shell)
    assert (curve.scheduled, curve.steps, curve.rates, curve.peak, curve.peak_step) == (False, (), (), 0.0, 0)


def test_a_loop_begun_anew_keeps_the_state_and_passes_over_its_warmup(captured):
    text = (
        MODEL
        + """
optimizer = optim.AdamW(1e-2)
step = nn.value_and_grad(model, loss_fn)
for i in range(20):
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    optimizer.learning_rate = 1e-2 * min(1, (i + 1) / 10)
    optimizer.update(model, grads)
"""
    )
    script = captured(text, batches=4)
    model, optimizer = script.subject.model(), script.subject.optimizer()
    rates = []
    for _ in range(40):
        script.subject.train_step(model, optimizer, script.batches[0])
        rates.append(float(optimizer.learning_rate))
    assert int(optimizer.step) == 40
    assert rates == pytest.approx([1e-2] * 40)


def test_everything_is_left_as_it_was_found(captured, tmp_path, capfd):
    (tmp_path / "helper.py").write_text("FOUND = 1\n")
    text = (
        MODEL
        + """
import helper
os.makedirs("out", exist_ok=True)
os.environ["CAPTURED"] = "1"
random.seed(5), np.random.seed(5)
with open("out/log.txt", "w") as log: log.write("started")
with open("out/log.txt") as log: assert log.read() == "started"
print("hello", sys.argv[1:])
os.chdir("/")
mx.savez("weights.npz", a=mx.ones(2)), model.save_weights("weights.safetensors")
"""
        + LOOP
    )
    random.seed(1), np.random.seed(1), mx.random.seed(1)
    here = os.getcwd(), list(sys.argv), list(sys.path), dict(os.environ)
    states = random.getstate(), np.random.get_state()[1].tolist()
    key = np.array(mx.random.state[0]).tolist()
    hooked = nn.value_and_grad, mx.compile, optim.Optimizer.update, nn.Module.update, mx.savez, open, os.mkdir
    script = captured(text, "--size", "3")
    assert np.array(mx.random.state[0]).tolist() == key
    for _ in range(2):
        assert (os.getcwd(), sys.argv, sys.path, dict(os.environ)) == here and "helper" not in sys.modules
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states
        assert hooked == (
            *(nn.value_and_grad, mx.compile, optim.Optimizer.update, nn.Module.update),
            *(mx.savez, open, os.mkdir),
        )
        assert {p.name for p in tmp_path.iterdir()} == {"helper.py", "train.py"}
        script.subject.train_step(script.subject.model(), script.subject.optimizer(), script.batches[0])
    assert capfd.readouterr().out == ""
    with open(script.log) as log:
        assert "hello ['--size', '3']" in log.read()
    assert "mx.savez was held back" in script.notes


@pytest.mark.parametrize(
    "deed",
    [
        "os.makedirs('out/run'); os.chdir('out/run'); open('log.txt', 'w').close()",
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())",
    ],
)
def test_a_script_may_work_in_a_folder_that_it_makes_or_removes(captured, tmp_path, monkeypatch, deed):
    monkeypatch.chdir(tmp_path)
    script = captured(f"{MODEL}\n{deed}\n{LOOP}")
    script.subject.train_step(script.subject.model(), script.subject.optimizer(), script.batches[0])
    assert os.getcwd() == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_files_made_past_open_are_left_out_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept.txt").write_text("kept")
    text = (
        MODEL
        + """
import shutil, tempfile
from pathlib import Path
os.close(os.open("low.txt", os.O_CREAT | os.O_WRONLY))
Path("touched").touch()
assert os.path.exists("low.txt") and Path("touched").is_file()
descriptor = os.open("config.json", os.O_WRONLY | os.O_APPEND)
os.write(descriptor, b" "), os.close(descriptor)
assert Path("config.json").read_text() == "{} "
os.makedirs("steps/1")
shutil.copy("config.json", "steps/1")
os.symlink("1", "steps/last"), os.link("old/kept.txt", "hard.txt")
assert os.listdir("steps/last") == ["config.json"] and Path("hard.txt").read_text() == "kept"
with open("hard.txt", "a") as file: file.write(", or not")
assert Path("hard.txt").read_text() == "kept, or not" and Path("old/kept.txt").read_text() == "kept"
os.truncate("low.txt", 3), os.chmod("low.txt", 0o600), os.chmod("config.json", 0), os.utime("touched")
os.replace("touched", "moved"), os.mkfifo("pipe")
assert os.path.getsize("low.txt") == 3 and os.path.exists("moved") and not os.path.exists("touched")
shutil.rmtree("steps"), shutil.rmtree("old")
assert not os.path.exists("steps")
with tempfile.TemporaryDirectory() as folder: Path(folder, "a").write_text("a")
assert not os.path.exists(folder)
"""
        + LOOP
    )
    mode = (tmp_path / "config.json").stat().st_mode
    (tmp_path / "train.py").write_text(text)
    CapturedScript("train.py", steps=3, batches=16).close()
    assert not list(Path(tempfile.gettempdir()).glob(f"{scratch(os.getpid())}*"))
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "config.json", "old"}
    assert (tmp_path / "config.json").read_text() == "{}" and (
        tmp_path / "config.json"
    ).stat().st_mode == mode
    assert (tmp_path / "old" / "kept.txt").read_text() == "kept"


NOT_CAPTURED = {
    "raises": ("x = 1\nprint(x)\nraise KeyError('lost')\n", "train.py:3"),
    "raises while it trains": (MODEL + LOOP + "    assert i < 2, 'lost'\n", "train.py:"),
    "exits": ("import sys\nsys.exit('no data here')\n", "train.py:2: no data here"),
    "asks": ("name = input('who? ')\n", "asks for input at "),
    "ends": ("print('done')\n", "without taking a gradient"),
    "needs arguments": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('text')\np.parse_args()\n",
        "text",
    ),
    "in a thread": (
        MODEL
        + "import threading\nstep = nn.value_and_grad(model, loss_fn)\n"
        + "t = threading.Thread(target=lambda: step(model, rows(), rows()))\nt.start()\nt.join()\n",
        "train.py:39, which cannot be watched",
    ),
    "arrays alone": (
        MODEL
        + "w = {'a': mx.ones(3)}\nstep = mx.grad(lambda w, x: (w['a'] * x).sum())\n"
        + "while True:\n    step(w, mx.ones(3))\n",
        "no nn.Module holds at ",
    ),
    "logits in the loss alone": (
        MODEL.replace("self.out(self.drop(x + mx.tanh(before)))", "self.drop(x + mx.tanh(before))").replace(
            "(model(x), y,", "(model.out(model(x)), y,"
        )
        + LOOP,
        "16 numbers a token, of which its loss makes 12 logits: have the model return these (the gradient at ",
    ),
    "no language model": (
        MODEL + "net = nn.Linear(3, 2)\nnn.value_and_grad(net, lambda x: net(x).sum())(mx.ones((4, 3)))\n",
        "token ids",
    ),
    "our own training": (
        MODEL
        + "from mlxstories.batch import Batch\nfrom mlxstories.model import ModelConfig, Transformer\n"
        + "from mlxstories.training.losses import next_token\n"
        + "own = Transformer(ModelConfig(vocab_size=12, dim=16, layers=1, heads=2, context=16))\n"
        + "def total(x):\n    return next_token(own, Batch(x[:, :-1], x[:, 1:], mx.ones(x[:, 1:].shape)))[0]\n"
        + "step = nn.value_and_grad(own, total)\nwhile True:\n    step(rows())\n",
        "`mlxstories debug RUN`",
    ),
}


def end_of_threads() -> None:
    """What the end of a thread warns of belongs to the test that began it."""
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_what_cannot_be_captured_is_said_in_one_line(captured, name):
    text, reason = NOT_CAPTURED[name]
    with pytest.raises(StoriesError) as error:
        captured(text)
    assert "train.py" in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)
    end_of_threads()


def test_a_script_that_exits_while_it_trains_is_examined_on_what_it_did(captured):
    text = MODEL + LOOP + "    if i == 9:\n        sys.exit(3)\n"
    script = captured(text)
    line = line_of(text, "sys.exit")
    assert len(script.batches) == 10
    assert [n for n in script.notes if f"exited at {os.getcwd()}/train.py:{line}: SystemExit 3" in n]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_script_that_waits_for_the_thread_in_which_it_trains_is_not_waited_for(tmp_path):
    text = MODEL + (
        "import threading, time\nstep = nn.value_and_grad(model, loss_fn)\n"
        "threading.Thread(target=lambda: step(model, rows(), rows()), daemon=True).start()\n"
        "while True:\n    time.sleep(0.01)\n"
    )
    (tmp_path / "train.py").write_text(text)
    result = CliRunner().invoke(main, ["debug", str(tmp_path / "train.py"), "--timeout", "500"])
    assert result.exit_code == 2
    assert (
        f"trains in a thread of its own at {tmp_path}/train.py:{line_of(text, 'target=')}," in result.output
    )
    end_of_threads()


def test_of_two_models_the_first_is_examined_and_the_other_named_with_its_line(captured):
    text = (
        MODEL
        + "other = Model()\n"
        + LOOP
        + "    nn.value_and_grad(other, loss_fn)(other, data[:, 1:], data[:, :-1])\n"
    )
    script = captured(text)
    assert len(script.batches) == 16 and (script.batches[0][0][:, 1:] == script.batches[0][1][:, :-1]).all()
    line = line_of(text, "(other, loss_fn)")
    assert [
        n for n in script.notes if n.startswith(f"a second model is trained at {os.getcwd()}/train.py:{line}")
    ]


def test_a_script_that_hangs_ends_in_time(tmp_path):
    (tmp_path / "train.py").write_text("import time\ntime.sleep(30)\n")
    result = CliRunner().invoke(main, ["debug", str(tmp_path / "train.py"), "--timeout", "4"])
    assert result.exit_code == 2 and "not finished after 4 s at" in result.output
    assert "train.py:2, and no gradient was asked of MLX by then; raise --timeout" in result.output


def findings(script):
    from mlxstories.ladder.capture import seen

    return {f.code: f for f in seen.findings(script)}


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
    [("i", 30, "error"), ("i // 4", 4, "warning"), ("i // 4", 30, None), ("0", 30, None)],
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
    assert "pkg.train: healthy" in result.output


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


def test_load_subject_runs_a_file_that_defines_none(tmp_path):
    (tmp_path / "train.py").write_text(MODEL + LOOP)
    subject = load_subject(str(tmp_path / "train.py"))
    assert subject.name == "train.py" and subject.vocab_size == 12
