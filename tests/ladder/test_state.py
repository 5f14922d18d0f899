"""What reaches the optimiser, what a step heeds, and what validation leaves behind: a mistake each, and its twin."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxstories.batch import Batch
from mlxstories.faults.recipe import built_in
from mlxstories.ladder import Subject, diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS

V, T, B = 13, 16, 8


class Tiny(nn.Module):
    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(V, 16), nn.Linear(16, 16), nn.Linear(16, V)
        self.drop = nn.Dropout(dropout)

    def __call__(self, tokens):
        x = self.embed(tokens)
        past = mx.cumsum(x, axis=1) / mx.arange(1, x.shape[1] + 1)[:, None]
        return self.head(self.drop(x + mx.tanh(self.mix(past))))


class Forgetful(Tiny):
    """Evaluation mode sets its dropout to 0 for good."""

    def __call__(self, tokens):
        if not self.training:
            self.drop._p_1 = 1.0
        return super().__call__(tokens)


def batches(seed, draw=None):
    rng = np.random.default_rng(seed)
    for _ in range(6):
        rows = (draw or rng.integers)(1, 3, (B, T + 1)).cumsum(1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T)))


def drawn_globally(seed):
    np.random.seed(seed)
    yield from batches(seed, np.random.randint)


def loss(model, batch):
    nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
    return (nats * batch.mask).sum() / batch.mask.sum()


def last_place(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs)[:, -1], batch.targets[:, -1]).mean()


def stepping(change=lambda gradients: gradients):
    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(model, loss)(model, batch)
        optimizer.update(model, change(gradients))
        return value

    return step


def accumulating(take, factor=0.5):
    """Two micro-batches an update; ``take(index)`` says which half comes."""

    def step(model, optimizer, batch):
        half, total, values = len(batch.inputs) // 2, None, 0.0
        for index in range(2):
            start = take(index) * half
            part = Batch(*(a[start : start + half] for a in batch))
            value, gradients = nn.value_and_grad(model, loss)(model, part)
            values = values + factor * value
            total = gradients if total is None else tree_map(mx.add, total, gradients)
        optimizer.update(model, tree_map(lambda g: factor * g, total))
        return values

    return step


def of_another_model(seed=3):
    mx.random.seed(seed)  # so small a model's gradient may resemble that of any other draw
    other = Tiny()

    def step(model, optimizer, batch):
        value, gradients = nn.value_and_grad(other, loss)(other, batch)
        optimizer.update(model, gradients)
        return value

    return step


def compiled(captured: bool):
    made = {}

    def build(model):
        state = [model.state] if captured else None
        gradient = nn.value_and_grad(model, lambda *batch: loss(model, Batch(*batch)))
        return mx.compile(lambda x, y, m: gradient(x, y, m), inputs=state, outputs=state)

    def step(model, optimizer, batch):
        if id(model) not in made:
            made[id(model)] = model, build(model)
        value, gradients = made[id(model)][1](*batch)
        optimizer.update(model, gradients)
        return value

    return step


def evaluating(before=lambda model: None):
    def evaluate(model, given):
        before(model)
        model.eval()
        values = [float(loss(model, batch)) for batch in given]
        return {"loss": sum(values) / len(values)}

    return evaluate


def subject(**fields) -> Subject:
    return Subject(**{"model": Tiny, "vocab_size": V, "train_batches": batches, "loss": loss, **fields})


def asked(name: str, of: Subject):
    check, bench = CHECKS[name], Bench(of, 0)
    with bench.protected():
        verdict = check.ask(bench, check.gauges())
    return verdict.status, [(draft.severity, draft.code) for draft in verdict.drafts]


GRADIENT, ROWS, PLACES = (
    "the loss's gradient reaches the optimiser",
    "every row matters to a step",
    "every place counts in the loss",
)
STEP, STATE = "the step follows the weights", "validating and decoding change nothing"


def sgd():
    return optim.SGD(0.1)


@pytest.mark.parametrize(
    "name, fields, code",
    [
        (GRADIENT, {"train_step": of_another_model()}, "gradient-mismatch"),
        (GRADIENT, {"train_step": stepping(lambda g: tree_map(mx.zeros_like, g))}, "gradient-mismatch"),
        (GRADIENT, {"train_step": accumulating(int, 1.0), "optimizer": sgd}, "gradient-mismatch"),
        (ROWS, {"train_step": accumulating(lambda index: 0)}, "rows-ignored"),
        (PLACES, {"loss": last_place}, "wrong-loss"),
        (STEP, {"train_step": compiled(False)}, "stale-computation"),
        (
            STATE,
            {"evaluate": evaluating(lambda m: m.update(tree_map(mx.zeros_like, m.parameters())))},
            "evaluation-changes-state",
        ),
        (
            STATE,
            {"evaluate": evaluating(lambda m: np.random.seed(0)), "train_batches": drawn_globally},
            "evaluation-changes-state",
        ),
    ],
)
def test_the_mistake_is_named(name, fields, code):
    assert asked(name, subject(**fields)) == ("failed", [("error", code)])


@pytest.mark.parametrize(
    "name, fields",
    [
        (GRADIENT, {"train_step": stepping()}),
        (GRADIENT, {"train_step": stepping(lambda g: optim.clip_grad_norm(g, 0.1)[0]), "optimizer": sgd}),
        (GRADIENT, {"train_step": stepping(lambda g: tree_map(lambda a: mx.clip(a, -1e-3, 1e-3), g))}),
        (GRADIENT, {"train_step": accumulating(int), "optimizer": sgd}),
        (GRADIENT, {"train_step": stepping(lambda g: {"head": g["head"]})}),
        (ROWS, {"train_step": accumulating(int)}),
        (PLACES, {}),
        (STEP, {"train_step": compiled(True)}),
        (STATE, {"evaluate": evaluating(), "model": lambda: Tiny(0.2)}),
        (STATE, {"evaluate": evaluating(lambda m: np.random.seed(0))}),
    ],
)
def test_its_twin_is_sound(name, fields):
    assert asked(name, subject(**fields)) == ("passed", [])


def test_dropout_that_evaluation_mode_removes_for_good_is_a_warning():
    assert asked(STATE, subject(model=lambda: Forgetful(0.2))) == (
        "passed",
        [("warning", "evaluation-changes-state")],
    )


@pytest.mark.parametrize(
    "fault, code",
    [("gradient-of-another-model", "gradient-mismatch"), ("same-half-accumulated", "rows-ignored")],
)
def test_a_planted_fault_is_named_on_its_rung(fault, code):
    mx.random.seed(0)  # as the ladder does before it draws its own model
    diagnosis = diagnose(built_in(fault=fault), rungs=["minimal"])
    assert [f.code for f in diagnosis.findings if f.severity == "error"] == [code]


class Biased(Tiny):
    """The mix's biases start at 0, where weight decay leaves them."""

    def __init__(self):
        super().__init__()
        self.mix.bias = mx.zeros_like(self.mix.bias)


def test_where_no_gradient_arrives_what_decay_leaves_at_0_is_not_called_frozen():
    nothing = subject(model=Biased, train_step=stepping(lambda g: tree_map(mx.zeros_like, g)))
    assert asked("a step moves every parameter", nothing) == ("skipped", [])
    assert asked(GRADIENT, nothing) == ("failed", [("error", "gradient-mismatch")])
    # the rest of the gradient arrives: what stands still is left out
    part = subject(model=Biased, train_step=stepping(lambda g: {"head": g["head"]}))
    assert asked("a step moves every parameter", part) == ("failed", [("error", "frozen-parameters")])
