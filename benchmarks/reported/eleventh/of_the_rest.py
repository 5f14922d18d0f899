"""Reported mistakes of data, validation and decoding, and their mends."""

from __future__ import annotations

import math
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import (
    BOS,
    EOS,
    PAD,
    Attention,
    D,
    H,
    Letters,
    Story,
    T,
    deal,
    evaluate,
    mean_nats,
    nats,
    on_sentences,
    padded,
    sentences,
    setup,
    step_of,
)
from mlx.utils import tree_map

SPACE = Letters().encode(" ")[0]


@cache
def filled(part):
    """int32 [N, T + 1]: beginning, sentence, and ends up to the end of the row."""
    return np.where(padded(part) == PAD, EOS, padded(part))


def f_rows_filled_with_ends():
    """Rows are filled up with the token that ends a text, and every one of these is asked for."""

    def everything(rows):
        return np.ones_like(rows[:, 1:], bool)

    return on_sentences(
        "rows filled with ends",
        train_batches=lambda seed: deal(filled("train"), seed, everything),
        val_batches=lambda: deal(filled("val"), None, everything),
    )


@cache
def spelled(part):
    """int32 [N, T + 1]: beginning, sentence, the three letters of the end's name, padding."""
    table = np.full((len(sentences(part)), T + 1), PAD, np.int32)
    for row, sentence in zip(table, sentences(part), strict=True):
        ids = [BOS, *Letters().encode(sentence + "eos")][: T + 1]
        row[: len(ids)] = ids
    return table


def f_end_spelled_out():
    """The tokenizer was not told of the token that ends a text, and reads its name as letters."""
    return on_sentences(
        "end spelled out",
        train_batches=lambda seed: deal(spelled("train"), seed),
        val_batches=lambda: deal(spelled("val")),
    )


def in_bits_per_byte(bytes_of):
    """An evaluation that also tells bits per byte; a character has one byte."""

    def evaluation(model, batches):
        rows = list(batches)
        figures = evaluate(model, rows)
        tokens = sum(mask.sum().item() for _, _, mask in rows)
        total = sum((bytes_of(y) * mask).sum().item() for _, y, mask in rows)
        return figures | {"bits_per_byte": figures["loss"] * tokens / math.log(2) / total}

    return evaluation


def f_spaces_counted_twice():
    """The table of bytes counts the space before a word, and whoever adds up its figures does so again."""
    return setup("spaces counted twice", evaluate=in_bits_per_byte(lambda y: 1 + (y == SPACE)))


def ok_spaces_counted_twice():
    return setup("spaces counted once", evaluate=in_bits_per_byte(mx.ones_like))


def evaluate_adapted(model, batches):
    """The model first learns from all that it is to be scored on; its weights are put back when it has been."""
    rows = list(batches)
    kept = tree_map(lambda w: w + 0, model.parameters())
    optimizer, step = optim.AdamW(1e-3, bias_correction=True), step_of(mean_nats)
    for batch in rows:
        step(model, optimizer, batch)
    figures = evaluate(model, rows)
    model.update(kept)
    return figures


def f_validated_after_training_on_it():
    """Validation takes a step on each of its batches, and then scores them."""
    return setup("validated after training on it", evaluate=evaluate_adapted)


def f_root_called_perplexity():
    """What is told as perplexity is the square root of the loss."""

    def evaluation(model, batches):
        figures = evaluate(model, batches)
        return figures | {"perplexity": math.sqrt(figures["loss"])}

    return setup("root called perplexity", evaluate=evaluation)


class Regular(Story):
    """Also tells the mean square of what the output layer reads, which training keeps small."""

    def both(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        return self.head(h), h.square().mean()


def with_its_size(model, batch):
    """Cross-entropy, and a tenth of the mean square."""
    x, y, mask = batch
    logits, size = model.both(x)
    return (nats(logits, y) * mask).sum() / mask.sum() + 0.1 * size


def regular(name, everything):
    """Perplexity is of the cross-entropy, or of the loss with both terms."""

    def evaluation(model, batches):
        rows = list(batches)
        figures = evaluate(model, rows)
        model.eval()
        sizes = [model.both(x)[1].item() for x, _, _ in rows]
        model.train()
        told = figures["loss"] + (0.1 * sum(sizes) / len(sizes) if everything else 0.0)
        return figures | {"perplexity": math.exp(told)}

    return setup(name, Regular, with_its_size, train_step=step_of(with_its_size), evaluate=evaluation)


def f_perplexity_of_all_terms():
    """Perplexity is the exponential of the loss that is trained, with the term that keeps activations small."""
    return regular("perplexity of all terms", everything=True)


def ok_perplexity_of_all_terms():
    return regular("perplexity of the cross-entropy", everything=False)


def tell_of_the_likeliest(model, prompt, n, k=1):
    """The token is drawn from the k likeliest; those are removed whose rank is above k, and ranks begin at 0."""
    model.eval()
    ids = list(prompt)
    for _ in range(n):
        logits = model(mx.array([ids]))[0, -1]
        rank = mx.argsort(mx.argsort(-logits))
        ids.append(int(mx.random.categorical(mx.where(rank > k, -mx.inf, logits)).item()))
    model.train()
    return ids[len(prompt) :]


def f_one_more_than_k():
    """Of the k likeliest tokens one more is kept; with k = 1 that is not the likeliest, but one of two."""
    return setup("one more than k", generate=tell_of_the_likeliest)


class Padded(Attention):
    """Has places of its own, and does not see what is hidden: [batch, 1, 1, time]."""

    def __call__(self, x, hidden):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(x.shape[1], x.shape[1])
        return self.o(
            (self.weights(scores + mx.where(hidden, -1e9, 0.0)) @ v).swapaxes(1, 2).reshape(x.shape)
        )


class Placed(Story):
    """Learned places are added; padding is hidden."""

    PLACES = 4 * T

    def __init__(self):
        super().__init__(attention=Padded)
        self.places = nn.Embedding(self.PLACES, D)

    def __call__(self, x, places=None):
        places = mx.arange(x.shape[1])[None] if places is None else places
        h = self.embed(x) + self.places(mx.minimum(places, self.PLACES - 1))
        hidden = (x == PAD)[:, None, None]
        for block in self.blocks:
            h = h + block.attention(block.n1(h), hidden)
            h = h + block.feed_forward(block.n2(h))
        return self.head(self.norm(h))


def tell_padded(places_of):
    """Greedy, with rows that are filled up at the left to the length of training."""

    def told(model, prompt, n):
        model.eval()
        ids = list(prompt)
        for _ in range(n):
            row = ([PAD] * T + ids)[-max(T, len(ids)) :]
            x = mx.array([row])
            ids.append(int(model(x, places_of(x))[0, -1].argmax().item()))
        model.train()
        return ids[len(prompt) :]

    return told


def f_places_count_padding():
    """Decoding pads at the left and hides that, but lets it count: the text begins at a place in the middle."""
    return setup("places count padding", Placed, generate=tell_padded(lambda x: None))


def ok_places_count_padding():
    def places(x):
        return mx.maximum(mx.cumsum((x != PAD).astype(mx.int32), axis=1) - 1, 0)

    return setup("places begin with the text", Placed, generate=tell_padded(places))
