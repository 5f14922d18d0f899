"""The data rung: texts, tokens, rows and targets, before any model."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.data import (
    batches,
    ids,
    next_token,
    id_width,
    variety,
    neighbours,
    length_order,
    targets,
    padding,
    tokenizer,
    verbatim,
    spacing,
    foreign_ids,
    unknown,
    texts_seen,
    untaught,
    ends,
    joins,
    split,
    validation_again,
)
