"""The checks of the ladder, one file a question; imported in the order in which they are asked."""

from mlxstories.ladder.checks import embedding_tables, finite_numbers, first_loss, loss_formula  # noqa: F401
# isort: off
from mlxstories.ladder.checks import batches, ids, variety, targets, padding, tokenizer, unknown, split  # noqa
from mlxstories.ladder.checks import leaks  # noqa: F401, I001  (order matters)
from mlxstories.ladder.checks import blindness, loss_leak  # noqa: F401
from mlxstories.ladder.checks import gradients_finite, constant_matrices, gradients_alive  # noqa: F401
from mlxstories.ladder.checks import gradient_sizes, frozen  # noqa: F401
