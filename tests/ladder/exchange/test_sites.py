"""The lines of a step and of a schedule that an exchange accuses."""

from __future__ import annotations

import inspect

import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from tiny import batches, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange.drafts import site
from mlxstories.ladder.exchange.inside_step import for_step


def loss(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets).mean()


def step(model, optimizer, batch):
    value, gradient = nn.value_and_grad(model, loss)(model, batch)
    # What is done to the gradient stands near the update.
    optimizer.update(model, gradient)
    return value


def dealt(seed):
    yield from batches(seed)


def falling(update):
    return 1e-2 * (1 - update / 200)


def line_of(function, words):
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if words in line)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("step", line_of(step, "optimizer.update")),
        ("loss", line_of(loss, "def ")),
        ("data", line_of(dealt, "def ")),
    ],
)
def test_a_step_lies_where_it_updates_and_loss_and_batches_where_they_begin(part, line):
    bench = Bench(subject(loss=loss, train_step=step, train_batches=lambda seed: dealt(seed)))
    with bench.protected():
        assert site(bench, part) == {"part": part, "file": __file__, "line": line}


def test_a_part_that_is_not_given_has_no_line():
    assert site(Bench(subject()), "step") == {"part": "step"}


@pytest.mark.parametrize(("rate", "known"), [(falling, True), (optim.cosine_decay(1e-2, 50), False)])
def test_a_rate_lies_where_the_subjects_own_schedule_does(rate, known):
    bench = Bench(subject(optimizer=lambda: optim.AdamW(rate)))
    constant = next(change for change in for_step(bench) if "constant" in change.name)
    assert constant.site == (
        {"part": "step", "file": __file__, "line": line_of(falling, "def ")} if known else None
    )


def begun_slowly():
    rate = 1e-2
    return optim.Adam(rate, betas=[0.9, 0.95])


@pytest.mark.parametrize("change", ["Adam's bias corrected", "the optimiser's moments and epsilon"])
def test_what_an_optimiser_was_made_with_lies_where_it_is_made(change):
    bench = Bench(subject(optimizer=begun_slowly))
    with bench.protected():
        (found,) = [one for one in for_step(bench) if one.name.startswith(change)]
    assert found.site == {"part": "step", "file": __file__, "line": line_of(begun_slowly, "optim.Adam(")}
