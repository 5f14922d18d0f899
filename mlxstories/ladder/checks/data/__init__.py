"""The data rung: texts, tokens, rows and targets, before any model."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks.data import (
    batches,
    ids,
    next_token,
    id_width,
    variety,
    adjacent_batches,
    length_order,
    kinds,
    targets,
    padding,
    tokenizer,
    verbatim,
    whitespace,
    foreign_ids,
    unknown,
    texts_seen,
    unused_texts,
    ends,
    text_boundaries,
    continuation,
    counted,
    split,
    validation_again,
)
