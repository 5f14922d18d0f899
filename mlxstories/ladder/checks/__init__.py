"""The checks of the ladder, one file a question; imported in the order in which they are asked."""

from mlxstories.ladder.checks import embedding_tables, finite_numbers, first_loss, loss_formula  # noqa: F401
# isort: off
from mlxstories.ladder.checks import batches, ids, variety, targets, padding, tokenizer, unknown, split  # noqa
