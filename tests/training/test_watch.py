"""The watch over a run's reports."""

from __future__ import annotations

import math

from mlxstories.training.watch import Watch


def codes(watch: Watch, reports) -> list[str]:
    return [f.code for step, report in enumerate(reports) for f in watch(step, **report)]


def test_the_watch_tells_each_trouble_once():
    falling = [{"loss": 6 * 0.9**i + 1, "grad_norm": 1.0, "val_loss": 2.0} for i in range(40)]
    assert codes(Watch(floor=1.5, vocab_size=500), falling) == []
    assert codes(Watch(), [{"loss": math.nan}, {"loss": math.nan}]) == ["not-finite"]
    assert codes(Watch(vocab_size=500), [{"loss": 6.21}] * 30) == ["learning-rate-too-small"]
    assert codes(Watch(floor=1.5), [{"val_loss": 1.2}] * 3) == ["too-good-to-be-true"]
    assert codes(Watch(), [{"grad_norm": 1.0}] * 10 + [{"grad_norm": 500.0}] * 5) == ["exploding-gradient"]
    assert codes(Watch(), [{"grad_norm": 1e-9}] * 5) == ["vanishing-gradient"]
    diverging = [{"loss": 6.0 - 0.1 * i} for i in range(20)] + [{"loss": 9.0}] * 5
    assert codes(Watch(vocab_size=500), diverging) == ["learning-rate-too-large"]
    memorising = [
        {"loss": 3 - 0.3 * i, "val_loss": 3 - 0.2 * i if i < 4 else 2.6 + 0.1 * i} for i in range(9)
    ]
    assert codes(Watch(), memorising) == ["overfitting"]
    assert codes(Watch(), [report | {"loss": 9.0} for report in memorising]) == []  # training got worse too
