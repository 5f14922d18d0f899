"""The checks of the ladder, one file a question; imported here in the order in which they are asked."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks import (
    # data
    batches,
    ids,
    variety,
    targets,
    padding,
    tokenizer,
    unknown,
    split,
    # init
    embedding_tables,
    finite_numbers,
    first_loss,
    loss_formula,
    places_count,
    leaks,
    blindness,
    loss_leak,
    gradients_finite,
    constant_matrices,
    gradients_alive,
    gradient_sizes,
    frozen,
    # minimal
    finite_step,
    movement,
    downhill,
    rows_matter,
    gradient_arrives,
    optimizer_state,
    bias_correction,
    step_loss,
    memorises,
    # sweep
    learning_rates,
    penalty,
    weight_decay,
    clipping,
    rate_size,
    overfits,
    warmup,
    # short
    short_finite,
    overstepping,
    word_order,
    word_frequencies,
    floor,
    # trained
    trained_leaks,
    evaluation_loss,
    evaluation_accuracy,
    evaluation_repeats,
    greedy,
    loops,
)
