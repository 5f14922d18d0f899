"""Twins of faults of the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlxstories.data.packing import Documents, Rows, pack
from mlxstories.data.tokenizer import END
from mlxstories.faults.cutting import answered, filled_up, in_pieces
from mlxstories.faults.data import read, retold, unmasked_mean
from mlxstories.faults.epochs import of_two_kinds
from mlxstories.faults.fault import change, minimising
from mlxstories.faults.recipe import Recipe, evaluate, generate, padded_rows
from mlxstories.faults.twins.twin import Plant, Twins, without_floor
from mlxstories.faults.vocabulary import Permuted, in_characters, vocabulary_of
from mlxstories.model import Transformer
from mlxstories.training.losses import next_token

TWINS = Twins()


class WithFeatures(Transformer):
    """Returns the features beside the logits."""

    def __call__(self, tokens, cache=None):
        features = self.features(tokens, cache)
        return self.head(features), features


class LogitsAlone:
    """The logits of a model that returns more."""

    def __init__(self, model):
        self.model, self.config, self.eval = model, model.config, model.eval

    def __call__(self, *inputs):
        return self.model(*inputs)[0]


def in_lines(texts: Sequence[str]) -> list[str]:
    """A sentence a line."""
    return [re.sub(r"(?<=[.!?])\s", "\n", text) for text in texts]


def last_id_told(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, rng)
    rows.inputs[0, 3] = rows.targets[0, 2] = documents.tokens.max()
    return rows


class Reordered(Permuted):
    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]


def same_order(documents: Documents, context: int, rng) -> Rows:
    return padded_rows(documents, context, None if rng is None else np.random.default_rng(0))


def repeated(times: int) -> Plant:
    """Every word so often in a row. Repeating is free, so the entropy of a token falls as often."""

    def plant(recipe: Recipe) -> Recipe:
        def stammer(stories):
            kept = stories[: len(stories) // times]
            return [[word for word in story for _ in range(times)] for story in kept]

        return replace(retold(stammer)(recipe), floor=recipe.floor / times)

    return plant


def packed_rows(documents: Documents, context: int, rng) -> Rows:
    return pack(documents, context, layout="packed", rng=rng)


def windows(documents: Documents, context: int, rng) -> Rows:
    """The stories end to end, cut into full rows."""
    order = range(len(documents)) if rng is None else rng.permutation(len(documents))
    stream = np.concatenate([[END], *([*documents[story], END] for story in order)]).astype(np.int32)
    shape = (-1, context)
    cells = (len(stream) - 1) // context * context
    inputs, targets = stream[:cells].reshape(shape), stream[1 : cells + 1].reshape(shape)
    return Rows(
        inputs, targets, np.ones_like(inputs, np.float32), np.zeros_like(inputs), np.zeros_like(inputs)
    )


def sentence_a_row(recipe: Recipe) -> Recipe:
    stop = recipe.tokenizer.encode(".")[0]

    def arrange(documents: Documents, context: int, rng) -> Rows:
        ends = ((story, np.flatnonzero(story == stop) + 1) for story in documents)
        sentences = [part for story, after in ends for part in np.split(story, after) if len(part)]
        return filled_up([np.concatenate([[END], part, [END]]) for part in sentences], context, rng)

    return replace(recipe, arrange=arrange)


def tenth_at_random(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, rng)
    return rows if rng is None else Rows(*(array[: len(rows.inputs) // 10] for array in rows))


def first_sentences_of_training(recipe: Recipe) -> Recipe:
    pairs = zip(recipe.train_texts, recipe.val_texts, strict=False)
    val = [". ".join([seen.split(". ")[0], *own.split(". ")[1:]]) for seen, own in pairs]
    return without_floor(read(recipe, val=val))


TWINS.add(
    "subject-error",
    "tuple-returned",
    "the model returns its features beside the logits, and whoever calls it knows",
    change(
        build_model=WithFeatures,
        objective=next_token,
        evaluate=lambda model, batches: evaluate(LogitsAlone(model), batches),
        generate=lambda model, prompt, n: generate(LogitsAlone(model), prompt, n),
    ),
)
TWINS.add(
    "token-out-of-range", "last-id", "the last id of the vocabulary occurs", change(arrange=last_id_told)
)
TWINS.add(
    "tokenizer-mismatch",
    "both-reordered",
    "the vocabulary stands in another order, and the batches were made in that order",
    lambda recipe: read(recipe, Reordered(recipe.tokenizer, 1)),
)
TWINS.add(
    "tokenizer-mismatch",
    "lines-read-as-spaces",
    "texts of a sentence a line, whose lines are parted by spaces in the rows",
    lambda recipe: replace(in_characters(str)(recipe), train_texts=in_lines(recipe.train_texts)),
)
TWINS.add(
    "high-unknown-rate", "few-unknown", "the rarest words are left out: 2 % are unknown", vocabulary_of(760)
)
TWINS.add(
    "constant-batches", "same-order", "every epoch tells its stories in one order", change(arrange=same_order)
)
TWINS.add(
    "constant-batches",
    "two-kinds-mixed",
    "lists of long words stand among the stories",
    of_two_kinds(mixed=True),
)
TWINS.add(
    "targets-not-shifted",
    "words-twice",
    "every word stands twice, so that every other target is its input",
    repeated(2),
)
TWINS.add(
    "targets-mismatched",
    "packed-rows",
    "rows hold several stories, with seams between them",
    change(arrange=packed_rows),
)
TWINS.add(
    "targets-mismatched",
    "pieces-go-on",
    "long stories are cut into pieces, each of which ends with the token that goes on",
    change(arrange=in_pieces(ended=False)),
)
TWINS.add(
    "targets-mismatched",
    "sentence-a-row",
    "rows are filled up behind each sentence, in the midst of a story",
    sentence_a_row,
)
TWINS.add(
    "padding-in-loss",
    "nothing-to-mask",
    "the loss knows no mask, and rows are windows of the stories end to end, without padding",
    change(arrange=windows),
    minimising(unmasked_mean),
)
TWINS.add(
    "texts-never-seen",
    "tenth-an-epoch",
    "an epoch is a tenth of the stories, another one each time",
    change(arrange=tenth_at_random),
)
TWINS.add(
    "texts-never-seen",
    "all-turns",
    "of a talk all answers are trained, and questions count nowhere",
    change(arrange=answered(all_turns=True)),
)
TWINS.add(
    "train-val-overlap",
    "first-sentences-shared",
    "validation stories begin with the first sentences of training stories",
    first_sentences_of_training,
)
