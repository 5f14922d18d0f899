"""The checks of the ladder, one file a question; imported in the order in which they are asked."""

# isort: off
from mlxstories.ladder.checks import short_finite, overstepping, word_order, word_frequencies, floor  # noqa: F401
from mlxstories.ladder.checks import (  # noqa: F401
    trained_leaks,
    evaluation_loss,
    evaluation_accuracy,
    evaluation_repeats,
    greedy,
    loops,
)
