"""The short rung: a short training on fresh batches."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.short import (
    short_finite,
    first_updates,
    overstepping,
    rate_holds,
    word_order,
    word_frequencies,
    floor,
)
