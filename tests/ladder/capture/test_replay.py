"""The script's own validation and decoding, called again by the ladder."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxstories.ladder import diagnose
from tests.ladder.scripts import LOOP, MODEL, line_of

VALIDATION = """
held = [rows() for _ in range(5)]


def estimate_loss():
    model.eval()
    total = 0.0
    for data in held:
        total += loss_fn(model, data[:, :-1], data[:, 1:]).item()
    model.train()
    return {"train": 0.0, "val": total / len(held)}


print(estimate_loss())
"""
DECODING = """
def sample(ids, count):
    model.eval()
    for _ in range(count):
        logits = model(ids)[:, -1]
        ids = mx.concatenate([ids, mx.random.categorical(logits)[:, None]], axis=1)
    model.train()
    return ids


print(sample(mx.array([[1, 2]]), 6))
"""


def noisy(script):
    mx.random.seed(3)
    model = script.subject.model()
    model.update(tree_map(lambda p: p + 0.3 * mx.random.normal(p.shape), model.parameters()))
    return model


def batches(count):
    rng = np.random.default_rng(5)
    return [tuple(rng.integers(0, 12, (2, 3, 6))) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 3, 7])  # fewer than, and not a divisor of, the five of its own loop
def test_validation_is_the_script_s_on_the_ladder_s_model_and_batches(captured, count):
    script = captured(MODEL.replace("Model()\n", "Model(0.5)\n") + VALIDATION + LOOP)
    model, ours = noisy(script), []
    told = script.subject.evaluate(model, batches(count))
    assert model.training and script.loop.model.training
    model.eval()
    for x, y in batches(count):
        logits = np.array(model(mx.array(x)))
        logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        ours.append(-np.take_along_axis(logits, y[..., None], -1).mean())
    assert told == {"loss": pytest.approx(np.mean(ours), rel=1e-5)}


def test_a_validation_that_sums_instead_of_averaging_is_found_with_its_line(captured):
    text = MODEL + VALIDATION.replace("total / len(held)", "total") + LOOP
    script = captured(text)
    found = script.explained(diagnose(script.subject, rungs=["trained"])).findings
    mismatch = next(f for f in found if f.code == "metric-mismatch")
    assert mismatch.where["line"] == line_of(text, "total += ")


UNCALLABLE = {
    "another figure": VALIDATION.replace("estimate_loss", "evaluate").replace(
        "total / len(held)", "np.exp(total / len(held))"
    ),
    "one batch": VALIDATION.replace("range(5)", "range(1)"),
    "nothing told": VALIDATION.replace("return {", "_ = {"),
}


@pytest.mark.parametrize("name", UNCALLABLE)
def test_what_is_no_validation_loss_is_not_handed_over(captured, name):
    assert captured(MODEL + UNCALLABLE[name] + LOOP).subject.evaluate is None


def test_a_validation_that_comes_to_its_end_tells_nothing(captured):
    text = VALIDATION.replace("for data in held", "for data in [next(left) for _ in range(2)]")
    text = text.replace(
        "held = [rows() for _ in range(5)]", "left = iter([rows() for _ in range(40)])"
    ).replace("len(held)", "2")
    script = captured(MODEL + text + LOOP)
    told = [script.subject.evaluate(noisy(script), batches(3)) for _ in range(12)]
    assert "loss" in told[0] and told[-1] == {}


@pytest.mark.parametrize("form", ["array", "list"])
def test_decoding_is_the_script_s_and_draws_the_likeliest(captured, form):
    text = DECODING
    if form == "list":
        text = text.replace("model(ids)[:, -1]", "model(mx.array([ids]))[:, -1]").replace(
            "mx.concatenate([ids, mx.random.categorical(logits)[:, None]], axis=1)",
            "ids + [mx.random.categorical(logits).item()]",
        )
        text = text.replace("mx.array([[1, 2]])", "[1, 2]")
    script = captured(MODEL.replace("Model()\n", "Model(0.5)\n") + text + LOOP)
    model, ids = noisy(script), [3, 1, 4]
    # more than the script itself asked for is no more to be had
    told = script.subject.generate(model, ids, 9)
    model.eval()
    for token in told:
        assert token == int(mx.argmax(model(mx.array([ids]))[0, -1]))
        ids = [*ids, token]
    assert len(told) == 5


def test_a_decoding_with_penalties_is_not_handed_over(captured):
    text = DECODING.replace("model(ids)[:, -1]", "model(ids)[:, -1]\n        logits[:, ids[0]] -= 5.0")
    assert captured(MODEL + text + LOOP).subject.generate is None


def test_decoding_from_the_last_but_one_position_is_found(captured):
    text = (
        MODEL + DECODING.replace("[:, -1]\n        ids", "[:, -2]\n        ids").replace("6))", "30))") + LOOP
    )
    script = captured(text)
    assert script.subject.generate is not None
    found = script.explained(diagnose(script.subject, rungs=["trained"])).findings
    assert "generation-mismatch" in [f.code for f in found]


def test_a_mask_among_the_parameters_that_follows_the_length_is_no_other_model(captured):
    text = MODEL.replace("Model()\n", "Model(0.5)\n").replace(
        "        x = self.embed(ids)\n",
        "        self.mask = mx.tril(mx.ones((ids.shape[1],) * 2))\n        x = self.embed(ids)\n",
    )
    script = captured(text + VALIDATION + LOOP)
    model = script.subject.model()
    model.mask = mx.ones((3, 3))
    assert "loss" in script.subject.evaluate(model, batches(2)) and script.loop.model.training
    model, batch = script.subject.model(), script.batches[0][:2]
    assert set(dict(nn.utils.tree_flatten(model.parameters()))) >= {"mask", "embed.weight"}
    losses = []
    for seed in (1, 2):
        mx.random.seed(seed)
        losses.append(
            script.subject.train_step(script.subject.model(), script.subject.optimizer(), batch).item()
        )
    assert losses[0] != losses[1]  # dropout is on
    assert script.subject.evaluate(model, batches(2))


def test_nothing_of_the_script_changes_when_it_is_called_again(captured):
    script = captured(MODEL + VALIDATION + DECODING + LOOP)
    own = script.loop.model
    before, kind = nn.Module.parameters(own), type(own)
    key, state = np.array(mx.random.state[0]), np.random.get_state()[1].copy()
    script.subject.evaluate(noisy(script), batches(2)), script.subject.generate(noisy(script), [1, 2], 3)
    mx.random.seed(3)
    assert type(own) is kind
    after = dict(nn.utils.tree_flatten(own.parameters()))
    assert all((after[n] == a).all().item() for n, a in nn.utils.tree_flatten(before))
    assert (np.random.get_state()[1] == state).all() and key.shape == (2,)


LAST = """
class Model(Model):
    def __call__(self, ids, targets=None):
        x = self.embed(ids)
        x = self.drop(x + mx.tanh(mx.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]))
        return (self.out(x), 0) if targets is not None else (self.out(x[:, -1:]), None)
def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x, y)[0], y, reduction="mean")
model = Model()
"""


def test_a_model_may_give_the_last_place_alone_without_targets(captured):
    script = captured(MODEL + LAST + LOOP)
    model, ids = script.subject.model(), mx.array(script.batches[0][0])
    assert model(ids)[0].shape == (4, 8, 12) and type(model).__name__ == "Model"
    assert mx.array_equal(model(ids)[0], model(ids, ids)[0])
    assert type(script.loop.model)(0.0)(ids)[0].shape == (4, 1, 12)  # the script's own is as it was
    diagnosis = diagnose(script.subject, rungs=["init", "minimal"])
    assert not [f.code for f in diagnosis.findings if f.severity == "error"]
