"""The trained rung: what the trained model sees, and its validation and decoding."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.trained import (
    trained_leaks,
    evaluation_repeats,
    evaluation_weights,
    evaluation_loss,
    evaluation_accuracy,
    evaluation_figures,
    evaluation_bits,
    train_and_eval,
    greedy,
    context_end,
    greedy_rows,
    loops,
)
