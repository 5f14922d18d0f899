"""An optimiser with an update of its own is held against the library's of its kind, at its own rate."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten
from tiny import Tiny, batches, subject

from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange import deepened
from mlxstories.ladder.exchange.inside_step import for_step


class Written(optim.AdamW):
    """Adam written out; without the ``root`` of its second moment steps are far too small."""

    def __init__(self, rate=1e-2, root=True):
        super().__init__(rate, bias_correction=True)
        self.root = root

    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        mean, squares = state["m"] / (1 - b1**self.step), state["v"] / (1 - b2**self.step)
        return parameter - self.learning_rate * mean / (
            mx.sqrt(squares) + self.eps if self.root else 0.1 + squares
        )


def rootless():
    return Written(root=False)


class Descent(optim.Optimizer):
    """Of no library's kind."""

    def __init__(self, rate=1e-2):
        super().__init__()
        self._maybe_schedule("learning_rate", rate)

    def init_single(self, parameter, state):
        pass

    def apply_single(self, gradient, parameter, state):
        return parameter - self.learning_rate * gradient


class Told(optim.AdamW):
    """With a method of its own beside the library's update."""

    def told(self, loss):
        self.learning_rate = self.learning_rate * loss


def own_update(optimizer):
    changes = for_step(Bench(subject(optimizer=optimizer)))
    return next((change for change in changes if "in place of" in change.name), None)


def trained_by(optimizer):
    mx.random.seed(0)
    model = Tiny()
    for batch in batches(0, 3):
        gradient = nn.value_and_grad(
            model, lambda m, b=batch: nn.losses.cross_entropy(m(b.inputs), b.targets).mean()
        )
        optimizer.update(model, gradient(model)[1])
    return dict(tree_flatten(model.parameters()))


@pytest.mark.parametrize(
    ("own", "library", "name"),
    [
        (rootless, lambda: optim.AdamW(1e-2, bias_correction=True), "AdamW in place of Written's"),
        (Descent, lambda: optim.Adam(1e-2, bias_correction=True), "Adam in place of Descent's"),
        (
            lambda: optim.MultiOptimizer(
                [rootless(), optim.AdamW(1e-2, bias_correction=True)], [lambda n, _: "mix" in n]
            ),
            lambda: optim.AdamW(1e-2, bias_correction=True),
            "AdamW in place of Written's",
        ),
    ],
)
def test_an_update_of_its_own_becomes_the_librarys_at_its_own_rate(own, library, name):
    change = own_update(own)
    assert change.name == f"the update of the library's {name}" and change.site["file"] == __file__
    optimizer = own()
    change.optimizer(optimizer)
    found, wanted = trained_by(optimizer), trained_by(library())
    assert all(mx.allclose(found[name], wanted[name], atol=1e-7) for name in wanted)


@pytest.mark.parametrize("library", [lambda: Told(1e-2), lambda: optim.Lion(1e-3), lambda: optim.SGD(0.1)])
def test_the_librarys_update_is_not_exchanged(library):
    assert own_update(library) is None


@pytest.mark.long
@pytest.mark.parametrize(("own", "accused"), [(rootless, True), (Written, False)])
def test_an_update_that_the_librarys_of_its_kind_is_far_ahead_of_is_an_error_at_its_line(own, accused):
    setup = subject(val_batches=lambda: batches(99, 4), optimizer=own)
    found = [f for f in deepened(diagnose(setup, rungs=["data"]), setup).findings if f.severity == "error"]
    assert bool(found) is accused
    for error in found:
        assert error.evidence["part"] == "step" and "AdamW in place of Written's" in error.message
        assert error.where["file"] == __file__
