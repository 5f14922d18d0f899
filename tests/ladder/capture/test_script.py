"""Training scripts as they are: captured under watch, their batches, loss and step the script's own."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxstories.errors import StoriesError
from mlxstories.ladder import load_subject
from mlxstories.ladder.bench.arrays import Answers, first_of
from mlxstories.ladder.bench.step.optimizers import read_schedule
from mlxstories.ladder.capture import is_script, script_findings
from mlxstories.ladder.capture.optimizers import Shell
from tests.ladder.scripts import LOOP, MODEL, STYLES, flat, line_of

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
COUNTED = """
optimizer, step, i, N, off = optim.SGD(0.1), nn.value_and_grad(model, loss_fn), 0, 301, False
while TEST:
    BEGIN
    data = rows()
    loss, grads = step(model, data[:, :-1], data[:, 1:])
    optimizer.update(model, grads)
    i += 1
    END
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
        (COUNTED.replace("TEST", "i < N"), 301),
        (COUNTED.replace("TEST", "i <= N"), 302),
        (COUNTED.replace("TEST", "i < N and model"), None),
        (COUNTED.replace("TEST", "True").replace("END", "if i > N: break"), 302),
        (COUNTED.replace("TEST", "True").replace("END", "if i >= N:\n        print(i)\n        break"), 301),
        (COUNTED.replace("TEST", "1").replace("BEGIN", "if i >= N: break"), 301),
        (
            COUNTED.replace("TEST", "True").replace(
                "BEGIN", "if i == 0 and off: break\n    if i >= N: break"
            ),
            301,
        ),
        (COUNTED.replace("TEST", "True").replace("END", "if i > N: break\n    if loss > 99: break"), None),
        (COUNTED.replace("TEST", "i < N").replace("END", "if i == 900: off = True\n    if off: break"), None),
        (COUNTED.replace("TEST", "i < N").replace("END", "if i and (loss < 0): break"), None),
        (COUNTED.replace("TEST", "i < N").replace("END", "if i == 200: i += 50"), None),
        (COUNTED.replace("TEST", "i < N").replace("i += 1", "i = i + 2"), 151),
        (COUNTED.replace("TEST", "i < N").replace("i += 1", "i += B // 2"), 151),
        (COUNTED.replace("TEST", "i < N").replace("i += 1", "k = 1\n    i += k"), None),
        (COUNTED.replace("TEST", "i < N").replace("i += 1", "i += int(rng.integers(2))"), None),
    ],
)
def test_updates_are_read_from_the_loops(captured, loop, updates):
    loop = loop.replace("BEGIN", "pass").replace("END", "pass")
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
        assert not is_script(file)
    for text in ("raise SystemExit", "def f():\n    subject = 1", "print(subject)"):
        file.write_text(text)
        assert is_script(file)


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
    "in a dictionary": "return {'logits': logits} if y is None else {'logits': logits, 'loss': self.nats(logits, y)}",
    "in an object": "return Output(logits, None if y is None else self.nats(logits, y))",
}
GOT = """
from dataclasses import dataclass
from typing import Any

@dataclass
class Output:
    logits: Any
    loss: Any

def out(got):
    if isinstance(got, Output):
        return got.loss
    return got["loss"] if isinstance(got, dict) else got[1] if isinstance(got, tuple) else got
"""


@pytest.mark.parametrize("returned", INSIDE)
def test_a_model_may_take_its_loss_itself(captured, returned):
    text = MODEL.replace("def __call__(self, ids)", "def __call__(self, ids, y=None)").replace(
        "return self.out(self.drop(x + mx.tanh(before)))",
        f"logits = self.out(self.drop(x + mx.tanh(before)))\n        {INSIDE[returned]}\n\n"
        "    def nats(self, logits, y):\n"
        "        return nn.losses.cross_entropy(logits.reshape(-1, V), y.reshape(-1)).mean()",
    )
    text = text.replace('nn.losses.cross_entropy(model(x), y, reduction="mean")', "out(model(x, y))")
    script = captured(text + GOT + LOOP)
    rng = np.random.default_rng(0)
    for batch in script.batches:
        rows = rng.integers(1, 12, (4, 9))
        assert (batch[0] == rows[:, :-1]).all() and (batch[1] == rows[:, 1:]).all()
    model, (x, y) = script.subject.model(), map(mx.array, script.batches[5][:2])
    logits = first_of(model(x))
    ours = nn.losses.cross_entropy(logits, y, reduction="mean").item()
    assert float(script.subject.loss(model, script.batches[5])) == pytest.approx(ours, rel=1e-5)
    assert script.roles.first.line.line == line_of(text, "nn.losses.cross_entropy(logits.reshape")


def shifting(cut: str) -> str:
    """A script whose model shifts its labels itself, as those of transformers do."""
    text = MODEL.replace("def __call__(self, ids)", "def __call__(self, ids, y=None)").replace(
        "return self.out(self.drop(x + mx.tanh(before)))",
        "logits = self.out(self.drop(x + mx.tanh(before)))\n"
        "        return logits if y is None else (self.nats(logits, y), logits)\n\n"
        "    def nats(self, logits, y):\n"
        f"        logits, y = {cut}\n"
        "        return nn.losses.cross_entropy(logits.reshape(-1, V), y.reshape(-1)).mean()",
    )
    text = text.replace('nn.losses.cross_entropy(model(x), y, reduction="mean")', "model(x, y)[0]")
    return text + LOOP.replace("data[:, :-1], data[:, 1:]", "data, data")


def test_a_model_may_shift_its_labels_itself(captured):
    script, rng = captured(shifting("logits[:, :-1], y[:, 1:]")), np.random.default_rng(0)
    for inputs, targets, mask in script.batches:
        rows = rng.integers(1, 12, (4, 9))
        assert (inputs == rows[:, :-1]).all() and (targets == rows[:, 1:]).all() and mask.all()


def test_logits_that_a_model_drops_at_the_front_are_not_taken_for_those_at_the_end(captured):
    with pytest.raises(StoriesError, match="neither inputs and targets nor tokens"):
        captured(shifting("logits[:, 1:], y[:, 1:]"))


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


def test_a_gpu_that_is_not_there_is_not_asked_for(captured):
    limits = 'mx.set_wired_limit(mx.device_info()["max_recommended_working_set_size"])\n'
    limits += 'mx.set_cache_limit(mx.device_info()["max_buffer_length"] // 2)\n'
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
    for part in range(3):
        data = rows()
        loss, grads = nn.value_and_grad(model, loss_fn)(model, data[:, :-1], data[:, 1:])
        total = grads if total is None else tree_map(lambda a, b: a + b, total, grads)
    optimizer.update(model, tree_map(lambda g: g / 3, total))
"""
    )
    assert [update.gradients for update in script.loop.seen.updates[:3]] == [3, 3, 3]
    assert not script_findings.findings(script)
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


def test_load_subject_runs_a_file_that_defines_none(tmp_path):
    (tmp_path / "train.py").write_text(MODEL + LOOP)
    subject = load_subject(str(tmp_path / "train.py"))
    assert subject.name == "train.py" and subject.vocab_size == 12
