"""The minimal rung: single updates, and a handful of stories memorised."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.minimal import (
    finite_step,
    movement,
    follows_weights,
    small_updates,
    downhill,
    rows_matter,
    gradient_arrives,
    order_of_rows,
    replicas,
    fresh_randomness,
    constants,
    optimizer_state,
    state_updated,
    weight_growth,
    bias_correction,
    leaves_state,
    step_loss,
    memorises,
    schedule_counts,
    schedule_leaps,
)
