"""An Adam whose bias is not corrected, over its own warmup."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import adamw, judged, subject, warm

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.adam import oversteps


def test_the_updates_of_an_uncorrected_adam_are_told_over_its_own_warmup():
    bench = Bench(subject(optimizer=adamw(warm(500), betas=[0.9, 0.999], bias_correction=False)))
    found, n = oversteps(bench), np.arange(1, 1001)
    rate = np.minimum((n - 1) / 500, 1.0)
    by_hand = rate * (1 - 0.9**n) / np.sqrt(1 - 0.999**n)
    np.testing.assert_allclose(found, by_hand, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("warmup", "told"), [(0, "error"), (2000, "warning")])
def test_a_warmup_may_do_for_the_bias_correction(warmup, told):
    schedule = warm(warmup) if warmup else 1e-2
    setup = subject(updates=10_000, optimizer=adamw(schedule, betas=[0.9, 0.9999], bias_correction=False))
    assert judged("bias correction", Bench(setup)) == [("no-bias-correction", told)]
