"""Faults of what an epoch brings: rows that come again, move on by a token, or never come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mlxstories.data.packing import Documents, Rows
from mlxstories.faults.data import read, read_once
from mlxstories.faults.fault import Faults, change
from mlxstories.faults.recipe import BATCH_SIZE, Recipe, padded_rows

FAULTS = Faults("epochs")


def windows_of(documents: Documents, context: int, stride: int, count: int) -> Rows:
    """Full windows that begin ``stride`` tokens apart on the stories end to end."""
    stream = np.concatenate([documents[story] for story in range(len(documents))]).astype(np.int32)
    starts = np.arange(0, len(stream) - context - 1, stride)[:count, None]
    inputs, targets = (stream[starts + np.arange(context) + ahead] for ahead in (0, 1))
    return Rows(
        inputs, targets, np.ones_like(inputs, np.float32), np.zeros_like(inputs), np.zeros_like(inputs)
    )


def picked(rows: Rows, index: np.ndarray) -> Rows:
    return Rows(*(array[index] for array in rows))


def last_twentieth(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, None)
    if rng is None:
        return rows
    count = len(rows.inputs)
    return picked(rows, rng.permutation(np.arange(count - count // 20, count)))


def none_short(documents: Documents, context: int, rng) -> Rows:
    if rng is not None:
        half = np.median(documents.lengths)
        documents = Documents.of(story for story in documents if len(story) >= half)
    return padded_rows(documents, context, rng)


def by_length(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, rng)
    return rows if rng is None else picked(rows, np.argsort(rows.mask.sum(1), kind="stable"))


def four_times_each(documents: Documents, context: int, rng) -> Rows:
    rows = padded_rows(documents, context, rng)
    if rng is None:
        return rows
    whole = len(rows.inputs) // BATCH_SIZE // 4 * BATCH_SIZE
    batches = np.arange(whole).reshape(-1, BATCH_SIZE)
    return picked(rows, np.repeat(batches, 4, axis=0).ravel())


def one_row_apart(documents: Documents, context: int, rng) -> Rows:
    """Batches that begin one row after the one before."""
    rows = padded_rows(documents, context, rng)
    if rng is None:
        return rows
    starts = np.arange(min(len(rows.inputs) - BATCH_SIZE, 200))[:, None]
    return picked(rows, (starts + np.arange(BATCH_SIZE)).ravel())


def one_token_on(documents: Documents, context: int, rng) -> Rows:
    if rng is None:
        return padded_rows(documents, context, None)
    return windows_of(documents, context, 1, 1024)


def batches_one_token_on(documents: Documents, context: int, rng) -> Rows:
    """Eight places of the stories, each moved on by one token from batch to batch."""
    if rng is None:
        return padded_rows(documents, context, None)
    rows = windows_of(documents, context, 1, 1024)
    return picked(rows, np.arange(len(rows.inputs)).reshape(BATCH_SIZE, -1).T.ravel())


def of_two_kinds(*, mixed: bool) -> Callable[[Recipe], Recipe]:
    """A plant of lists of long words beside the stories, which training reads behind them, or among them."""

    def arrange(documents: Documents, context: int, rng) -> Rows:
        rows = padded_rows(documents, context, rng)
        if rng is None or mixed:
            return rows
        return picked(rows, np.argsort(rows.story.max(1) >= len(documents) // 2, kind="stable"))

    def with_lists(texts: Sequence[str]) -> list[str]:
        return [*texts, *(" ".join(word for word in text.split() if len(word) > 4) for text in texts)]

    def plant(recipe: Recipe) -> Recipe:
        told = read(recipe, train=with_lists(recipe.train_texts), val=with_lists(recipe.val_texts))
        return replace(told, arrange=arrange, floor=None)

    return plant


FAULTS.add(
    "last-twentieth-for-ever",
    "texts-never-seen",
    "every epoch begins where a run was resumed, and goes round the last twentieth of the stories",
    change(arrange=last_twentieth),
)
FAULTS.add(
    "short-stories-dropped",
    "texts-never-seen",
    "the shorter half of the stories yields no row (trl pull 446)",
    change(arrange=none_short),
    severity="warning",
)
FAULTS.add(
    "sorted-by-length",
    "constant-batches",
    "rows come in order of length in every epoch (pytorch-seq2seq issue 96)",
    change(arrange=by_length),
    severity="warning",
)
FAULTS.add(
    "kind-after-kind",
    "constant-batches",
    "texts are shuffled file by file, and each file is of one kind",
    of_two_kinds(mixed=False),
    severity="warning",
)
FAULTS.add(
    "workers-share-a-seed",
    "constant-batches",
    "four workers of a loader draw with one seed: each batch is delivered four times",
    change(arrange=four_times_each),
)
FAULTS.add(
    "batches-one-row-apart",
    "constant-batches",
    "batches begin one row apart, not a batch: each row is in eight of them, one after the other",
    change(arrange=one_row_apart),
)
FAULTS.add(
    "windows-one-token-on",
    "constant-batches",
    "windows begin one token apart and are not shuffled: a batch is one stretch of text eight times over",
    change(arrange=one_token_on),
)
FAULTS.add(
    "batches-one-token-on",
    "constant-batches",
    "each batch is the one before, a token on",
    change(arrange=batches_one_token_on),
)


FAULTS.add(
    "validation-read-once",
    "constant-batches",
    "one generator serves every validation, and is empty after the first",
    read_once(training=False),
)


@FAULTS.planted(
    "windows-cut-before-split",
    "train-val-overlap",
    "overlapping windows are split at random: validation stands in training",
)
def _(recipe: Recipe) -> Recipe:
    def arrange(documents, context, rng):
        rows = windows_of(recipe.train, context, 12, 1600)
        order = np.random.default_rng(0).permutation(len(rows.inputs))
        return picked(rows, order[64:] if rng is not None else order[:64])

    return replace(recipe, arrange=arrange, val_texts=())
