"""What the trained model sees, or an exploded one would."""

from __future__ import annotations

import mlx.optimizers as optim
import pytest
from tiny import subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.trained import sight_after_training


@pytest.mark.parametrize(("rate", "seen"), [(3e-2, True), (1e3, False)])
def test_weights_that_exploded_tell_nothing_of_leaks(rate, seen):
    bench = Bench(subject(optimizer=lambda: optim.Adam(rate, bias_correction=True)))
    with bench.protected():
        memorising(bench)
    assert (sight_after_training(bench) is not None) is seen
