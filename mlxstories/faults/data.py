"""Faults of the data: splits, targets, vocabularies, padding, batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.batch import Batch
from mlxstories.data.packing import Documents, Rows
from mlxstories.data.tokenizer import words
from mlxstories.faults.fault import Faults, change, minimising
from mlxstories.faults.recipe import Recipe, padded_rows

FAULTS = Faults("data")


def read(recipe: Recipe, tokenizer=None, train=None, val=None) -> Recipe:
    """The recipe with other texts or another tokenizer, everything that follows from them made anew."""
    tokenizer = tokenizer or recipe.tokenizer
    train, val = train or recipe.train_texts, val or recipe.val_texts
    return replace(
        recipe,
        tokenizer=tokenizer,
        train_texts=train,
        val_texts=val,
        train=Documents.of(tokenizer.encode_batch(train)),
        val=Documents.of(tokenizer.encode_batch(val)),
        config=replace(recipe.config, vocab_size=tokenizer.vocab_size),
    )


# Validation that training has seen


@FAULTS.planted("val-is-train", "train-val-overlap", "validation takes the first training stories")
def _(recipe: Recipe) -> Recipe:
    return read(recipe, val=list(recipe.train_texts[: len(recipe.val_texts)]))


@FAULTS.planted(
    "val-third-from-train", "train-val-overlap", "a third of the validation stories are in training"
)
def _(recipe: Recipe) -> Recipe:
    third = len(recipe.val_texts) // 3
    return read(recipe, val=[*recipe.train_texts[:third], *recipe.val_texts[third:]])


@FAULTS.planted("val-near-duplicates", "train-val-overlap", "validation is training with the hero renamed")
def _(recipe: Recipe) -> Recipe:
    names = ("Lily", "Tom", "Mia", "Ben", "Anna", "Max", "Sara", "Tim")
    renamed = []
    for index, text in enumerate(recipe.train_texts[: len(recipe.val_texts)]):
        pieces = text.split(" ")
        capital = next((w for w in pieces[1:] if w[:1].isupper() and w.isalpha()), pieces[0])
        renamed.append(text.replace(capital, names[index % len(names)]))
    return read(recipe, val=renamed)


# Targets


def targets(function):
    """A plant that makes a batch's targets from its inputs and targets."""

    def collate(batch: Batch) -> Batch:
        return batch._replace(targets=function(batch.inputs, batch.targets))

    return change(collate=collate)


FAULTS.add(
    "targets-are-inputs",
    "targets-not-shifted",
    "the targets are the inputs themselves",
    targets(lambda inputs, outputs: inputs),
)
FAULTS.add(
    "targets-two-ahead",
    "targets-mismatched",
    "the targets are shifted twice, once in the data and once in the batch",
    targets(lambda inputs, outputs: mx.roll(outputs, -1, axis=1)),
)
FAULTS.add(
    "targets-one-behind",
    "targets-mismatched",
    "the targets are shifted the wrong way: each is the token before",
    targets(lambda inputs, outputs: mx.roll(inputs, 1, axis=1)),
)
FAULTS.add(
    "targets-of-another-row",
    "targets-mismatched",
    "inputs are shuffled, targets are not",
    targets(lambda inputs, outputs: mx.roll(outputs, 1, axis=0)),
)
FAULTS.add(
    "targets-reversed",
    "targets-mismatched",
    "the targets of a row are written back to front",
    targets(lambda inputs, outputs: outputs[:, ::-1]),
)
FAULTS.add(
    "targets-clipped",
    "targets-mismatched",
    "every target above 500 is written as 500",
    targets(lambda inputs, outputs: mx.minimum(outputs, 500)),
)


# Padding


FAULTS.add(
    "mask-all-ones",
    "padding-in-loss",
    "the mask marks padding as real",
    change(collate=lambda batch: batch._replace(mask=mx.ones_like(batch.mask))),
)


def unmasked_mean(model: nn.Module, batch: Batch) -> mx.array:
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")


FAULTS.add(
    "loss-forgets-mask", "padding-in-loss", "the loss averages over padding too", minimising(unmasked_mean)
)


# Batches


def first_rows_again(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, None)
    if rng is None:
        return rows
    return Rows(*(np.concatenate([array[:8]] * 32) for array in rows))


def first_row_again(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, None)
    if rng is None:
        return rows
    return Rows(*(np.repeat(array[:1], 256, axis=0) for array in rows))


FAULTS.add(
    "one-batch-for-ever",
    "constant-batches",
    "the loader starts over at each batch, so all are the first",
    change(arrange=first_rows_again),
)
FAULTS.add(
    "one-row-for-ever",
    "constant-batches",
    "the index within an epoch is never advanced: every row is the same story",
    change(arrange=first_row_again),
)


def read_once(*, training: bool) -> Callable[[Recipe], Recipe]:
    """A plant of one generator for all epochs of training, or for all validations."""

    def plant(recipe: Recipe) -> Recipe:
        class Once(type(recipe)):
            kept = None

            def batches(self, documents, rng):
                if (rng is not None) is not training:
                    return super().batches(documents, rng)
                if Once.kept is None:
                    Once.kept = super().batches(documents, rng)
                return Once.kept

        return Once(**{name: getattr(recipe, name) for name in recipe.__dataclass_fields__})

    return plant


FAULTS.add(
    "iterator-used-up",
    "constant-batches",
    "one generator serves every epoch, and is empty after the first",
    read_once(training=True),
)


def retold(function):
    """A plant that makes lists of stories, each a list of words, from such lists."""

    def plant(recipe: Recipe) -> Recipe:
        train = function([words(text) for text in recipe.train_texts])
        val = function([words(text) for text in recipe.val_texts])
        return read(
            recipe, train=[" ".join(story) for story in train], val=[" ".join(story) for story in val]
        )

    return plant


def shuffled_across(stories: list[list[str]]) -> list[list[str]]:
    everything = np.random.default_rng(0).permutation(np.concatenate(stories))
    return [part.tolist() for part in np.array_split(everything, len(stories))]


FAULTS.add(
    "words-shuffled",
    "no-better-than-unigram",
    "the list of all words is shuffled where the list of stories was meant",
    retold(shuffled_across),
)
FAULTS.add(
    "words-stuttered",
    "too-good-to-be-true",
    "np.repeat for np.tile: every word stands sixteen times in a row",
    retold(
        lambda stories: [
            [word for word in story for _ in range(16)] for story in stories[: len(stories) // 8]
        ]
    ),
)
