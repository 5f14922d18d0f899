"""What may be meant: a rate that falls with the run, and a change that does any model good."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from tiny import subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange import halving
from mlxstories.ladder.exchange.exchange import Gap
from mlxstories.ladder.exchange.halving import Proof
from mlxstories.ladder.exchange.inside_step import for_step


@pytest.mark.parametrize(
    ("rate", "updates", "meant"),
    [
        (lambda step: 1e-2 * (1 - step / 200), 200, True),
        (optim.cosine_decay(1e-2, 200), 200, True),
        (lambda step: 1e-2 * (1 - step / 100), 200, False),  # below 0
        (optim.cosine_decay(1e-2, 50), 200, False),  # at its end after a quarter
        (lambda step: 5e-3 * (1 + mx.cos(step / 5)), 200, False),  # swings
        (lambda step: 1e-2 * (1 - step / 200), None, False),  # of a run that is not known
    ],
)
def test_a_rate_that_falls_with_the_stated_run_may_be_meant(rate, updates, meant):
    bench = Bench(subject(optimizer=lambda: optim.AdamW(rate), updates=updates))
    constant = next(change for change in for_step(bench) if "constant" in change.name)
    assert constant.wanted is meant


@pytest.mark.parametrize(
    ("own", "helped", "plain", "with_it", "any_model"),
    [
        (1.938, 1.552, 1.832, 1.606, True),  # 20 %, of which 12 % a plain decoder gains, too
        (2.428, 2.171, 2.201, 2.121, False),  # 11 %, of which 4 %
        (2.0, 1.8, 1.8, 1.9, False),  # it does the plain one harm
    ],
)
def test_a_change_that_helps_a_plain_decoder_more_proves_nothing(own, helped, plain, with_it, any_model):
    runs = [SimpleNamespace(loss=x) for x in (own, helped, plain, with_it)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "gap", lambda one, two, margin=None: Gap(1 - two.loss / one.loss, 0.001))
        proof = Proof(None, runs[1], runs[0], (runs[2], runs[3]))
        assert proof.helps_any is any_model
    assert Proof(None, runs[1], runs[0]).helps_any is False
