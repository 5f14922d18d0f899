"""Reported mistakes of loss, data, validation and decoding, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import BOS, EOS, HELD, TOLD, B, D, Letters, T, V, deal, evaluate, nats, setup

CHUNK = 32


def chunked(model, batch):
    """Means of chunks of 32 tokens, added up."""
    x, y, _ = batch
    told = nats(model(x), y).reshape(-1)
    return sum(told[at : at + CHUNK].mean() for at in range(0, told.size, CHUNK))


def evaluate_chunked(model, batches):
    model.eval()
    rows = list(batches)
    told = [chunked(model, batch).item() for batch in rows]
    model.train()
    return evaluate(model, rows) | {"loss": sum(told) / len(told)}


def f_chunks_summed():
    """To save memory the loss is taken in chunks, whose means are added: training and validation report 24 times the
    loss."""
    return setup("chunks summed", loss=chunked, evaluate=evaluate_chunked)


def of_one_hot(classes):
    """Logarithms of probabilities times targets that are 1 in one place, averaged; over the classes, too, or not."""

    def loss(model, batch):
        x, y, _ = batch
        told = nn.log_softmax(model(x), axis=-1) * (y[..., None] == mx.arange(V))
        return -(told.mean() if classes else told.sum(axis=-1).mean())

    return loss


def momentum():
    return optim.SGD(0.1, momentum=0.9)


def f_mean_over_classes():
    """The mean runs over the classes, too, all but one of which are 0: loss and gradients are a 57th of what they
    should be, and SGD follows them."""
    loss = of_one_hot(classes=True)
    return setup("mean over classes", loss=loss, optimizer=momentum)


def ok_mean_over_classes():
    loss = of_one_hot(classes=False)
    return setup("sum over classes", loss=loss, optimizer=momentum)


@cache
def ids(part):
    return np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)


def begun(starts, part, ahead):
    """A batch of (inputs, targets, mask): the beginning and T - 1 characters; targets from ``ahead`` characters after
    the first on, and the end."""
    table, few = ids(part), len(starts)
    at = np.array(starts)[:, None] + np.arange(T - 1)
    x = np.concatenate([np.full((few, 1), BOS), table[at]], axis=1)
    y = np.concatenate([table[at + ahead], np.full((few, 1), EOS)], axis=1)
    return mx.array(x.astype(np.int32)), mx.array(y.astype(np.int32)), mx.ones(x.shape)


def drawn(seed, ahead):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        yield begun(rng.integers(0, len(ids("train")) - T, B), "train", ahead)


def in_order(ahead):
    starts = range(0, len(ids("val")) - T, T)
    for at in range(0, len(starts) - B + 1, B):
        yield begun(starts[at : at + B], "val", ahead)


def f_begun_and_shifted():
    """A beginning is put before the inputs, which shifts them by one, and the targets are shifted all the same."""
    return setup(
        "begun and shifted",
        train_batches=lambda seed: drawn(seed, 1),
        val_batches=lambda: in_order(1),
    )


def ok_begun_and_shifted():
    return setup("begun", train_batches=lambda seed: drawn(seed, 0), val_batches=lambda: in_order(0))


def streams(part, number, length, time_first):
    """Text in ``number`` streams, read side by side, ``length`` tokens at a time."""
    whole = ids(part)
    table = whole[: len(whole) // number * number].reshape(number, -1).T
    for at in range(0, len(table) - length, length):
        x, y = table[at : at + length], table[at + 1 : at + length + 1]
        x, y = (x, y) if time_first else (x.T, y.T)
        yield mx.array(np.ascontiguousarray(x)), mx.array(np.ascontiguousarray(y)), mx.ones(x.shape)


def f_time_first():
    """The iterator yields time first, whatever it was told: the model reads across 48 streams, and not along one."""
    return setup(
        "time first",
        train_batches=lambda seed: streams("train", T, B, True),
        val_batches=lambda: streams("val", T, B, True),
    )


def ok_time_first():
    return setup(
        "streams",
        train_batches=lambda seed: streams("train", B, T, False),
        val_batches=lambda: streams("val", B, T, False),
    )


@cache
def files(part, filled):
    """int32 [N, T + 1]: what each of 10 workers writes, a beginning before each text; ``filled`` up with beginnings to
    the size that files have."""
    texts, workers, rows = (TOLD, 10, []) if part == "train" else (HELD, 1, [])
    for worker in range(workers):
        told = [i for story in texts[worker::workers] for i in [BOS, *Letters().encode(story)]]
        if filled:
            told += [BOS] * (340 * T + 1 - len(told))
        rows += [told[at : at + T + 1] for at in range(0, len(told) - T, T)]
    return np.array(rows, np.int32)


def all_count(rows):
    return np.ones_like(rows[:, 1:])


def f_files_filled():
    """Each worker's file has a size, and what its texts leave empty is filled with the token that begins a text and
    trained on."""
    return setup(
        "files filled",
        train_batches=lambda seed: deal(files("train", True), seed, all_count),
        val_batches=lambda: deal(files("val", False), counts=all_count),
    )


def ok_files_filled():
    return setup(
        "files cut off",
        train_batches=lambda seed: deal(files("train", False), seed, all_count),
        val_batches=lambda: deal(files("val", False), counts=all_count),
    )


class Running:
    """A mean of nats over all validations so far: it is never reset."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def __call__(self, model, batches):
        told = evaluate(model, batches)
        self.total, self.count = self.total + told["loss"], self.count + 1
        return told | {"loss": self.total / self.count}


def f_mean_not_reset():
    """The validation loss is the mean of this validation and all before it."""
    return setup("mean not reset", evaluate=Running())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.read, self.head = nn.Embedding(V, D), nn.GRU(D, D), nn.Linear(D, V)

    def __call__(self, x, state=None):
        return self.head(self.read(self.embedding(x), state))


def told_without_state(model, prompt, n):
    """Greedy, a token at a time, each from an empty state."""
    model.eval()
    told = [prompt[-1]]
    for _ in range(n):
        told.append(int(model(mx.array([told[-1:]]))[0, -1].argmax().item()))
    model.train()
    return told[1:]


def f_state_not_carried():
    """Decoding reads a character at a time, and the network's state is thrown away between them."""
    return setup("state not carried", Recurrent, generate=told_without_state)


def ok_state_not_carried():
    return setup("gated recurrent unit", Recurrent)
