"""Reported mistakes of loss and of what is reported, and their mends."""

from __future__ import annotations

import math

import mlx.core as mx
from base import (
    ALPHABET,
    HELD,
    TOLD,
    D,
    Story,
    deal,
    evaluate,
    mean_nats,
    nats,
    on_sentences,
    setup,
    step_of,
    windows,
)
from mlx.utils import tree_map


def evaluate_last(model, batches):
    """Loss and accuracy of the batch that came last."""
    for batch in batches:
        figures = evaluate(model, [batch])
    return figures


def f_last_batch_reported():
    """The loss is overwritten by each batch of validation, and that of the last one is reported."""
    return setup("loss of the last batch", evaluate=evaluate_last)


def with_bits(in_bits):
    def evaluation(model, batches):
        figures = evaluate(model, batches)
        return figures | {"bits_per_byte": figures["loss"] / (math.log(2) if in_bits else 1.0)}

    return evaluation


def f_nats_called_bits():
    """Bits per byte that are nats: the logarithm is the natural one, and nobody divides by ln 2."""
    return setup("nats called bits", evaluate=with_bits(False))


def ok_nats_called_bits():
    return setup("bits", evaluate=with_bits(True))


def evaluate_unshifted(model, batches):
    """The loss against the next token, the accuracy against the token itself."""
    batches = list(batches)
    return evaluate(model, batches) | {
        "accuracy": evaluate(model, [(x, x, mask) for x, _, mask in batches])["accuracy"]
    }


def f_accuracy_unshifted():
    """The accuracy holds each prediction against the token that it was made from."""
    return setup("accuracy not shifted", evaluate=evaluate_unshifted)


class Average:
    """A moving average of each model's weights, renewed every so many updates."""

    def __init__(self, decay, every):
        self.decay, self.every, self.models = decay, every, {}

    def step(self, model, optimizer, batch):
        if id(model) not in self.models:
            self.models[id(model)] = [model, 0, tree_map(lambda a: a + 0, model.parameters())]
        value = step_of(mean_nats)(model, optimizer, batch)
        entry = self.models[id(model)]
        entry[1] += 1
        if entry[1] % self.every == 0:
            entry[2] = tree_map(
                lambda old, new: self.decay * old + (1 - self.decay) * new, entry[2], model.parameters()
            )
            mx.eval(entry[2])
        return value

    def evaluate(self, model, batches):
        if id(model) not in self.models:
            return evaluate(model, batches)
        own = tree_map(lambda a: a, model.parameters())
        model.update(self.models[id(model)][2])
        try:
            return evaluate(model, batches)
        finally:
            model.update(own)


def averaging(decay, every):
    average = Average(decay, every)
    return {"train_step": average.step, "evaluate": average.evaluate}


def f_averaged_by_epoch():
    """The moving average moves with the epochs, by a decay that was meant for updates: what is validated are all but
    the first weights."""
    return setup("averaged by epoch", **averaging(decay=0.99, every=60))


def ok_averaged_by_epoch():
    return setup("averaged by update", **averaging(decay=0.9, every=1))


class Convolved(Story):
    """Each token's vector is mixed with those of the two before it, as far as they are of the same text: of a token
    with position 0 none is."""

    def __init__(self):
        super().__init__()
        self.taps = mx.full((3, D), 1 / 3)

    def __call__(self, x, cache=None, positions=None):
        h = self.embedding(x)
        positions = mx.arange(x.shape[1]) if positions is None else positions
        mixed = self.taps[0] * h
        for back in (1, 2):
            before = mx.pad(h, [(0, 0), (back, 0), (0, 0)])[:, : x.shape[1]]
            mixed = mixed + self.taps[back] * before * (positions >= back)[..., None]
        for block in self.blocks:
            mixed = block(mixed)
        return self.head(self.norm(mixed))


def with_positions(right):
    def loss(model, batch):
        x, y, mask = batch
        positions = mx.broadcast_to(mx.arange(x.shape[1]), x.shape) if right else mx.zeros(x.shape)
        return (nats(model(x, positions=positions), y) * mask).sum() / mask.sum()

    return loss


def f_positions_in_training_only():
    """Training hands the model positions that are all 0, so that it takes each token for a text of its own;
    validation hands it none."""
    return setup("positions in training only", Convolved, loss=with_positions(False))


def ok_positions_in_training_only():
    return setup("positions of the row", Convolved, loss=with_positions(True))


def first_counted(model, batch):
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum() / (mask.sum() + len(x))


def f_first_place_counted():
    """The sum of losses is divided by all tokens of the rows, the first of each, which is no target, among them."""
    return on_sentences("first places counted", loss=first_counted)


class FromNought:
    """One id for each character, from 0, which is the blank."""

    vocab_size = len(ALPHABET)

    def encode(self, text):
        return [ALPHABET.index(c) for c in text]

    def decode(self, ids):
        return "".join(ALPHABET[i] for i in map(int, ids))


def without_padding(left_out):
    """Id 0 is left out as padding, or not."""

    def batches(part, seed=None):
        return ((x, y) for x, y, _ in deal(windows(part) - 3, seed))

    def masked(batch):
        x, y = batch
        return x, y, (y != 0) if left_out else mx.ones(y.shape)

    def loss(model, batch):
        return mean_nats(model, masked(batch))

    return {
        "model": lambda: Story(size=FromNought.vocab_size),
        "vocab_size": FromNought.vocab_size,
        "tokenizer": FromNought(),
        "loss": loss,
        "train_step": step_of(loss),
        "evaluate": lambda model, batches: evaluate(model, map(masked, batches)),
        "train_batches": lambda seed: batches("train", seed),
        "val_batches": lambda: batches("val"),
        "train_texts": TOLD,
        "val_texts": HELD,
    }


def f_nought_left_out():
    """Loss and validation leave out id 0, "padding by convention", which is the commonest token here."""
    return setup("id 0 left out", **without_padding(True))


def ok_nought_left_out():
    return setup("all ids count", **without_padding(False))
