"""What counts in training and in validation."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from tiny import B, T, batches, judged

NAME = "training asks for what validation asks for"
WHOLE, LAST = np.ones(T), np.arange(T) >= T - 4
BOTH = LAST | ((np.arange(T) >= 4) & (np.arange(T) < 8))


def counting(mask):
    return lambda seed=0: (
        batch._replace(mask=mx.array(np.broadcast_to(mask, (B, T)).astype(np.float32)))
        for batch in batches(seed)
    )


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        (LAST, BOTH, True),
        (BOTH, BOTH, False),
        (BOTH, LAST, False),
        (LAST, WHOLE, False),  # questions count in validation: perhaps on purpose
        (WHOLE, BOTH, False),
    ],
    ids=["last-turn", "both", "validation-less", "questions", "all"],
)
def test_what_validation_asks_for_counts_in_training(train, val, told):
    said = judged(NAME, train_batches=counting(train), val_batches=counting(val))
    assert said == [("texts-never-seen", "error")] * told
