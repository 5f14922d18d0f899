"""The sweep rung: the minimal batch at other rates."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.sweep import (
    learning_rates,
    penalty,
    weight_decay,
    clipping,
    rate_size,
    overfits,
    warmup,
    schedule_ends,
)
