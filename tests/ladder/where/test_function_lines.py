"""The line at which a function of the subject does its work: validation, decoding, a step, batches."""

from __future__ import annotations

import linecache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from tiny import subject

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where import located


def evaluates(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = asked(model, batch)  # evaluate
        nats += nn.losses.cross_entropy(logits, batch.targets).sum().item()
        tokens += batch.targets.size
    return {"loss": nats / tokens}


def asked(model, batch):
    return model(batch.inputs)


def sums_wrongly(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = model(batch.inputs)
        losses = nn.losses.cross_entropy(logits, batch.targets)
        nats += losses.sum().item()
        tokens += batch.targets.size  # figures
    model.train()
    return {"loss": nats / tokens}


def test_a_wrong_figure_is_found_where_the_last_of_what_is_returned_is_summed_up():
    finding = Finding("metric-mismatch", ERROR, "trained", "", where="evaluate")
    found = located(Bench(subject(evaluate=sums_wrongly)), finding).where
    assert "# figures" in linecache.getline(found["file"], found["line"])


def delegates(model, batches):
    return sums_wrongly(model, batches)


def asks_about_targets(model, batches):
    nats = tokens = 0
    for batch in batches:
        logits = model(batch.targets)  # asked
        nats += nn.losses.cross_entropy(logits, batch.targets).sum().item()
        tokens += batch.targets.size
    noted = nats, tokens
    model.train()
    model.eval()
    return {"loss": noted[0] / noted[1]}


@pytest.mark.parametrize(("evaluate", "line"), [(delegates, "figures"), (asks_about_targets, "asked")])
def test_a_wrong_figure_is_followed_to_who_sums_it_up_or_to_what_the_model_is_asked(evaluate, line):
    finding = Finding("metric-mismatch", ERROR, "trained", "", where="evaluate")
    found = located(Bench(subject(evaluate=evaluate)), finding).where
    assert f"# {line}" in linecache.getline(found["file"], found["line"])


def test_a_function_that_fails_by_itself_is_not_run_again():
    def endless(model, optimizer, batch):
        pytest.fail("run again")

    finding = Finding("subject-error", ERROR, "minimal", "", where="train_step")
    found = located(Bench(subject(train_step=endless)), finding).where
    assert found["line"] == endless.__code__.co_firstlineno


def generates(model, prompt, count):
    told = []
    for _ in range(count):
        told.append(model(mx.array([prompt + told]))[0, -1].argmax().item())  # generate
    return told


def generates_nothing(model, prompt, count):
    told = []
    return told  # generate


def steps(model, optimizer, batch):
    loss, gradients = nn.value_and_grad(model, lambda m: asked(m, batch).mean())(model)
    optimizer.update(model, gradients)  # train_step
    mx.eval(model.parameters())
    return loss


def steps_nowhere(model, optimizer, batch):
    loss, _ = nn.value_and_grad(model, lambda m: asked(m, batch).mean())(model)
    mx.eval(loss)
    return loss  # train_step


@pytest.mark.parametrize("function", [evaluates, generates, generates_nothing, steps, steps_nowhere])
def test_a_function_is_found_where_it_does_its_work_or_ends_without(function):
    part = (
        "evaluate" if function is evaluates else "train_step" if "steps" in function.__name__ else "generate"
    )
    bench = Bench(subject(**{part: function}))
    found = located(bench, Finding("stale-computation", ERROR, "minimal", "", where=part)).where
    assert f"# {part}" in linecache.getline(found["file"], found["line"]) and found["module"] == part


def dealt(seed):
    rows = np.random.default_rng(seed).integers(0, 9, (8, 17))
    for start in range(0, len(rows), 4):
        part = mx.array(rows[start : start + 4])
        yield part[:, :-1], part[:, 1:]  # here


@pytest.mark.parametrize("of", [dealt, lambda seed: dealt(seed)])
def test_batches_of_a_generator_are_made_where_it_begins_and_yields(of):
    bench = Bench(subject(train_batches=of))
    found = [
        located(bench, Finding(code, ERROR, "data", "", where="train_batches")).where["line"]
        for code in ("constant-batches", "targets-mismatched")
    ]
    assert found[0] == dealt.__code__.co_firstlineno
    assert "# here" in linecache.getline(__file__, found[1])
