"""Reported mistakes of loss, data, validation and decoding, and their mends."""

from __future__ import annotations

import re
from functools import cache

import mlx.core as mx
import numpy as np
from base import HELD, PAD, TOLD, Letters, T, V, deal, evaluate, setup, windows

SHARE = np.bincount(windows("train")[:, 1:].reshape(-1), minlength=V) + 1.0
SHARE = mx.array((SHARE / SHARE.sum()).astype(np.float32))


def of_probabilities(model, batch):
    """The negative of what is expected to be a logarithm, but is the probability itself."""
    x, y, mask = batch
    p = mx.softmax(model(x), axis=-1)
    return -(mx.take_along_axis(p, y[..., None], axis=-1)[..., 0] * mask).sum() / mask.sum()


def f_log_left_out():
    """The loss expects logarithms of probabilities, and is given probabilities: it lies between -1 and 0."""
    return setup("log left out", loss=of_probabilities)


def sampled(corrected):
    """The target against 24 characters, drawn anew for each as often as they come in the text."""

    def loss(model, batch):
        x, y, mask = batch
        drawn = mx.random.categorical(mx.log(SHARE), shape=(*y.shape, 24))
        logits = model(x) - mx.log(SHARE) if corrected else model(x)
        own = mx.take_along_axis(logits, y[..., None], axis=-1)
        others = mx.take_along_axis(logits, drawn, axis=-1)
        others = mx.where(drawn == y[..., None], -1e9, others)
        nats = mx.logsumexp(mx.concatenate([own, others], axis=-1), axis=-1) - own[..., 0]
        return (nats * mask).sum() / mask.sum()

    return loss


def f_sampled_uncorrected():
    """What is drawn often is often a wrong answer; without the logarithm of its share taken off, common characters
    are thought to be less likely by just that."""
    return setup("sampled, uncorrected", loss=sampled(False))


def ok_sampled_uncorrected():
    return setup("sampled, corrected", loss=sampled(True))


@cache
def read(part):
    """int32 [N, T + 1]: ids that were written with 32 bits each, and read as twice as many of 16."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), "<u4")
    halves = np.frombuffer(ids.tobytes(), "<u2").astype(np.int32)
    return np.stack([halves[at : at + T + 1] for at in range(0, len(halves) - T, T)])


def all_count(rows):
    return np.ones_like(rows[:, 1:])


def f_read_as_halves():
    """The type of a file's numbers is not recognised, and a smaller one taken: every second id is 0."""
    return setup(
        "read as halves",
        train_batches=lambda seed: deal(read("train"), seed, all_count),
        val_batches=lambda: deal(read("val"), counts=all_count),
    )


@cache
def lines(part, end):
    """int32 [N, T + 1]: stories that lie in files a sentence a line, read line by line."""
    stories = TOLD if part == "train" else HELD
    text = " ".join(end.join(re.split(r"(?<=[.!?])\s", story)) for story in stories)
    ids = np.array(Letters().encode(text), np.int32)
    return np.stack([ids[at : at + T + 1] for at in range(0, len(ids) - T, T)])


def f_lines_joined():
    """What parts the lines is taken off when they are read, and not put back: each sentence begins right behind the
    one before."""
    return setup(
        "lines joined",
        train_batches=lambda seed: deal(lines("train", ""), seed),
        val_batches=lambda: deal(lines("val", "")),
    )


def ok_lines_joined():
    return setup(
        "lines parted",
        train_batches=lambda seed: deal(lines("train", " "), seed),
        val_batches=lambda: deal(lines("val", " ")),
    )


def told_behind_padding(model, prompt, n):
    """Greedy; prompts are padded to a row at their right, and the next token is read off at the row's end."""
    model.eval()
    ids = list(prompt)
    for _ in range(n):
        row = ids + [PAD] * max(0, T - len(ids))
        ids.append(int(model(mx.array([row]))[0, -1].argmax().item()))
    model.train()
    return ids[len(prompt) :]


def f_read_off_the_padding():
    """Decoding pads at the right and takes the logits of the last place, which follow on padding."""
    return setup("read off the padding", generate=told_behind_padding)


def two_to_the_nats(model, batches):
    told = evaluate(model, batches)
    return told | {"perplexity": 2.0 ** told["loss"]}


def f_two_to_the_nats():
    """Perplexity is two to the power of the loss, which is in nats."""
    return setup("two to the nats", evaluate=two_to_the_nats)
