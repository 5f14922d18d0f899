"""Reported mistakes of loss, data and validation, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from base import HELD, PAD, TOLD, Letters, T, deal, evaluate, nats, setup

SPACE = Letters().encode(" ")[0]


def smoothed(spread):
    """Nine tenths of the target's nats, and ``spread`` shared among all characters."""

    def loss(model, batch):
        x, y, mask = batch
        own = nn.log_softmax(model(x), axis=-1)
        picked = mx.take_along_axis(own, y[..., None], axis=-1)[..., 0]
        return -((0.9 * picked + spread * own.mean(-1)) * mask).sum() / mask.sum()

    return loss


def f_smoothed_without_share():
    """Smoothing by 0.1 takes a tenth from the target and gives a whole one to all: what is asked for adds up to
    1.9."""
    return setup("smoothed without its share", loss=smoothed(1.0))


def ok_smoothed_without_share():
    return setup("smoothed", loss=smoothed(0.1))


def rolled(model, batch):
    """Targets are the batch's inputs, put in one line and rolled by one."""
    x, _, _ = batch
    return nats(model(x), mx.roll(x.reshape(-1), -1).reshape(x.shape)).mean()


def f_rolled_over_rows():
    """Rows lie in one line, which is rolled by one: at its end each asks for the beginning of the next, and the last
    for that of the first."""
    return setup("rolled over rows", loss=rolled)


def without_spaces(batches):
    """The same rows, in which what stands for a space was taken for padding and left out."""
    for x, y, _ in batches:
        rows = np.concatenate([np.array(x), np.array(y[:, -1:])], axis=1)
        table = np.full_like(rows, PAD)
        for row, ids in zip(table, rows, strict=True):
            left = ids[ids != SPACE]
            row[: len(left)] = left
        mask = (table[:, 1:] != PAD).astype(np.float32)
        yield mx.array(table[:, :-1]), mx.array(table[:, 1:]), mx.array(mask)


def f_left_out_as_padding():
    """Validation takes the id of the space for that of padding, and throws it out of the text."""
    return setup(
        "spaces left out as padding",
        evaluate=lambda model, batches: evaluate(model, without_spaces(batches)),
    )


@cache
def shard(of, numbers):
    """The stories whose numbers leave one of ``numbers`` over when divided by ``of``."""
    return [story for i, story in enumerate(TOLD + HELD) if i % of in numbers]


@cache
def cut(of, numbers):
    """int32 [N, T + 1]: these stories in a row, cut up."""
    ids = np.array(Letters().encode(" ".join(shard(of, numbers))), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def f_shards_overlap():
    """Stories are dealt to as many shards as there are workers: four in training, which leaves the second to
    validation, and two there, whose second holds half of training's."""
    return setup(
        "shards overlap",
        train_batches=lambda seed: deal(cut(4, (0, 2, 3)), seed),
        val_batches=lambda: deal(cut(2, (1,))),
        train_texts=shard(4, (0, 2, 3)),
        val_texts=shard(2, (1,)),
    )


def ok_shards_overlap():
    return setup(
        "shards apart",
        train_batches=lambda seed: deal(cut(4, (0, 2, 3)), seed),
        val_batches=lambda: deal(cut(4, (1,))),
        train_texts=shard(4, (0, 2, 3)),
        val_texts=shard(4, (1,)),
    )
