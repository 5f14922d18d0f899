"""Which average of which figures a validation loss is."""

from __future__ import annotations

import numpy as np
import pytest
from plain import T, bench
from plain import batches as given
from tiny import ask, told

from mlxstories.ladder.bench.batches import read_batch
from mlxstories.ladder.bench.evaluation.averages import MEAN, averages
from mlxstories.ladder.bench.evaluation.evaluation import Reported, oracle_reported

V = 11


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (lambda w, parts: w[MEAN].loss, []),
        (lambda w, parts: w["mean of batch means"].loss, [("metric-mismatch", "warning")]),
        (lambda w, parts: w["padding"].loss, [("padding-in-accuracy", "error")]),
        (lambda w, parts: 0.9 * w[MEAN].loss + 0.1 * w[MEAN].flat, [("smoothed-validation-loss", "error")]),
        (lambda w, parts: w[MEAN].loss / np.log(2), [("metric-mismatch", "error")]),
        (lambda w, parts: parts[0][MEAN].loss, [("metric-mismatch", "error")]),
        (lambda w, parts: float("nan"), [("metric-mismatch", "error")]),
    ],
)
def test_what_a_validation_loss_is(report, found):
    rng = np.random.default_rng(0)
    logits = [3 * rng.standard_normal((3, T, V)) for _ in range(3)]
    kept = [np.arange(T) < rng.integers(2, T, (3, 1)) for _ in range(3)]
    batches = [read_batch((rng.integers(0, V, (3, T)), rng.integers(0, V, (3, T)), k * 1.0)) for k in kept]
    parts = [averages([a], [b]) for a, b in zip(logits, batches, strict=True)]
    on = bench(evaluate=lambda model, batches: {}, val_batches=lambda: given(99))
    on.taken[oracle_reported] = Reported({"loss": report(averages(logits, batches), parts)}, logits, batches)
    verdict = ask("validation agrees with ours", on)
    assert told(verdict)[1] == found
    assert ask("its accuracy agrees with ours", on).status == "skipped"


def test_targets_of_minus_100_are_left_out_of_averages():
    rng = np.random.default_rng(0)
    logits, ids = [rng.standard_normal((2, T, V))], rng.integers(0, V, (2, 2, T))
    kept = np.arange(T) < T - 2
    masked = read_batch((ids[0], ids[1], np.broadcast_to(kept * 1.0, (2, T))))
    told = masked.with_(targets=np.where(kept, masked.targets, -100), mask=np.ones((2, T)))
    assert averages(logits, [told])[MEAN] == averages(logits, [masked])[MEAN]
