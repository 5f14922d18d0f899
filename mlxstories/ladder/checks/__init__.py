"""The checks of the ladder, one file a question; imported in the order in which they are asked."""

# isort: off
from mlxstories.ladder.checks import batches, ids, variety, targets, padding, tokenizer, unknown, split  # noqa
