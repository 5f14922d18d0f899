"""Faults of token ids, vocabularies and tokenizers."""

from __future__ import annotations

import re
from dataclasses import replace

import mlx.core as mx
import numpy as np

from mlxstories.batch import Batch
from mlxstories.data.packing import Documents, Rows
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.faults.data import read
from mlxstories.faults.fault import Faults, change
from mlxstories.faults.recipe import Recipe, padded_rows
from mlxstories.model import Transformer

FAULTS = Faults("data")


def one_bad_id(value):
    def arrange(documents: Documents, context: int, rng) -> Rows:
        rows = padded_rows(documents, context, rng)
        rows.inputs[len(rows.inputs) // 2, 3] = value
        return rows

    return arrange


@FAULTS.planted(
    "id-beyond-vocabulary", "token-out-of-range", "one token id equals the size of the vocabulary"
)
def _(recipe: Recipe) -> Recipe:
    return replace(recipe, arrange=one_bad_id(recipe.config.vocab_size))


FAULTS.add(
    "negative-id",
    "token-out-of-range",
    "padding is -1 and reaches the embedding",
    change(arrange=one_bad_id(-1)),
)


FAULTS.add(
    "embedding-too-small",
    "token-out-of-range",
    "the embedding has a row less than there are ids",
    change(build_model=lambda config: Transformer(replace(config, vocab_size=config.vocab_size - 1))),
)


class Permuted:
    """A tokenizer with the same words under other ids."""

    def __init__(self, tokenizer: Tokenizer, seed: int):
        self.tokenizer = tokenizer
        specials = np.arange(3)
        others = np.random.default_rng(seed).permutation(np.arange(3, tokenizer.vocab_size))
        self.to = np.concatenate([specials, others])
        self.back = np.argsort(self.to)
        self.vocab_size = tokenizer.vocab_size

    def encode(self, text: str) -> list[int]:
        return self.to[self.tokenizer.encode(text)].tolist()

    def decode(self, ids) -> str:
        return self.tokenizer.decode(self.back[list(ids)].tolist())


@FAULTS.planted(
    "vocabulary-reordered", "tokenizer-mismatch", "the batches were made by a tokenizer of another order"
)
def _(recipe: Recipe) -> Recipe:
    return replace(recipe, tokenizer=Permuted(recipe.tokenizer, 1))


@FAULTS.planted(
    "validation-without-stops",
    "tokenizer-mismatch",
    "validation's texts lose their full stops before encoding",
)
def _(recipe: Recipe) -> Recipe:
    return replace(recipe, val=read(recipe, val=[text.replace(".", "") for text in recipe.val_texts]).val)


@FAULTS.planted(
    "tokenizer-retrained", "tokenizer-mismatch", "the tokenizer was trained again, on other stories"
)
def _(recipe: Recipe) -> Recipe:
    half = recipe.train_texts[len(recipe.train_texts) // 2 :]
    return replace(recipe, tokenizer=Tokenizer.train("word", half, recipe.config.vocab_size))


@FAULTS.planted(
    "tokenizer-of-characters", "tokenizer-mismatch", "the batches hold words, the tokenizer characters"
)
def _(recipe: Recipe) -> Recipe:
    return replace(recipe, tokenizer=Tokenizer.train("char", recipe.train_texts, 256))


def in_eight_bits(batch: Batch) -> Batch:
    return Batch(batch.inputs % 256, batch.targets % 256, batch.mask)


FAULTS.add(
    "ids-in-8-bits",
    "tokenizer-mismatch",
    "ids are stored in 8 bits, so that those above 255 wrap around",
    change(collate=in_eight_bits),
)


def vocabulary_of(size: int):
    def plant(recipe: Recipe) -> Recipe:
        return read(recipe, Tokenizer.train("word", recipe.train_texts, size))

    return plant


FAULTS.add(
    "vocabulary-of-25",
    "high-unknown-rate",
    "25 words are kept, most of the text is unknown",
    vocabulary_of(25),
)
FAULTS.add(
    "vocabulary-of-60",
    "high-unknown-rate",
    "60 words are kept, much of the text is unknown",
    vocabulary_of(60),
)


def in_halves(batch: Batch) -> Batch:
    """Each id as two numbers of half its bits, of which the higher is 0."""
    rows = mx.concatenate([batch.inputs, batch.targets[:, -1:]], axis=1)
    halves = mx.stack([rows, mx.zeros_like(rows)], axis=-1).reshape(rows.shape[0], -1)[:, : rows.shape[1]]
    real = mx.repeat(batch.mask, 2, axis=1)[:, : batch.mask.shape[1]]
    return batch._replace(inputs=halves[:, :-1], targets=halves[:, 1:], mask=real)


FAULTS.add(
    "ids-read-in-halves",
    "tokenizer-mismatch",
    "ids of 32 bits are read as 16 bits: every second one is 0",
    change(collate=in_halves),
)


def in_characters(changed):
    """A plant of characters as tokens, of texts that are changed on the way into the rows."""

    def plant(recipe: Recipe) -> Recipe:
        train, val = ([changed(text) for text in part] for part in (recipe.train_texts, recipe.val_texts))
        told = read(recipe, Tokenizer.train("char", recipe.train_texts, 256), train, val)
        return replace(told, train_texts=recipe.train_texts, val_texts=recipe.val_texts, floor=None)

    return plant


FAULTS.add(
    "lines-run-together",
    "tokenizer-mismatch",
    "each sentence is a line, and what parts the lines is lost when they are read",
    in_characters(lambda text: re.sub(r"(?<=[.!?])\s", "", text)),
)
