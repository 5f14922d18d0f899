"""Reported mistakes of decoding and evaluation, and their mends."""

from __future__ import annotations

import mlx.core as mx
from base import (
    BOS,
    Attention,
    Block,
    Cache,
    D,
    Story,
    evaluate,
    nats,
    on_sentences,
    setup,
    tell_cached,
)


def ok_decoding():
    """With a cache, and RoPE."""
    return setup("cached decoding", generate=tell_cached)


class PlacedAtNought(Attention):
    def turned(self, q, k, cache):
        offset = cache.offset if cache and q.shape[2] > 1 else 0
        return self.rope(q, offset=offset), self.rope(k, offset=offset)


def f_decoded_at_nought():
    """Position ids are those of the tokens given, and so 0 for every single one that is decoded."""
    return setup("decoded at place 0", lambda: Story(attention=PlacedAtNought), generate=tell_cached)


class Jumping(Cache):
    """The offset moves on by the length of the tokens given one call earlier."""

    def __init__(self):
        super().__init__()
        self.last = 0

    def update(self, *new):
        offset = self.offset + (self.last or new[0].shape[2])
        kept = super().update(*new)
        self.offset, self.last = offset, new[0].shape[2]
        return kept


def f_offset_jumps():
    """After the first token that is decoded, the offset grows by the length of the prompt once more."""
    return setup("offset jumps", generate=lambda model, prompt, n: tell_cached(model, prompt, n, Jumping))


class OneFurther(Attention):
    """A layer that reads the count when the layer below has raised it already."""

    def turned(self, q, k, cache):
        offset = (cache.offset if cache else 0) + (1 if cache and q.shape[2] == 1 else 0)
        return self.rope(q, offset=offset), self.rope(k, offset=offset)


class CountedEarly(Story):
    def __init__(self):
        super().__init__(layers=3)
        for block in self.blocks[1:]:
            block.attention = OneFurther()


def f_counted_early():
    """The first layer raises the count of tokens seen, and those above turn by one place too far while decoding."""
    return setup("counted early", CountedEarly, generate=tell_cached)


class Shifted(Block):
    """A block whose input is mixed with the token before it."""

    keeps = True

    def __init__(self):
        super().__init__()
        self.share = mx.full((D,), 0.5)

    def __call__(self, x, cache=None):
        before = getattr(cache, "before", None) if self.keeps else None
        before = mx.zeros_like(x[:, :1]) if before is None else before
        if cache:
            cache.before = x[:, -1:]
        mixed = self.share * x + (1 - self.share) * mx.concatenate([before, x[:, :-1]], axis=1)
        return x + super().__call__(mixed, cache) - mixed


class ShiftLost(Shifted):
    keeps = False


def f_shift_lost():
    """The token shift's state is not kept while decoding: each token is mixed with nothing."""
    return setup("token shift lost", lambda: Story(block=ShiftLost), generate=tell_cached)


def ok_shift_lost():
    return setup("token shift kept", lambda: Story(block=Shifted), generate=tell_cached)


def f_begun_twice():
    """Decoding puts the beginning before a prompt that begins with it already."""
    return on_sentences(
        "begun twice", generate=lambda model, prompt, n: tell_cached(model, [BOS, *prompt], n)
    )


def ok_begun_twice():
    return on_sentences("begun once", generate=tell_cached)


def evaluate_one_more(model, batches):
    """Of each row also the first padding after its end, where there is one."""
    wider = [(x, y, mx.concatenate([mask[:, :1], mask[:, :-1]], axis=1)) for x, y, mask in batches]
    return evaluate(model, wider)


def f_padding_evaluated():
    """A row's score takes in one token of padding, unless it is the longest."""
    return on_sentences("one padding evaluated", evaluate=evaluate_one_more)


def perplexity(of_mean):
    def evaluation(model, batches):
        model.eval()
        losses, masks, right = [], [], 0.0
        for x, y, mask in batches:
            logits = model(x)
            losses.append(nats(logits, y))
            masks.append(mask)
            right += ((logits.argmax(-1) == y) * mask).sum().item()
        losses, mask = mx.concatenate(losses), mx.concatenate(masks)
        mean = (losses * mask).sum() / mask.sum()
        of_exps = (mx.exp(losses) * mask).sum() / mask.sum()
        model.train()
        return {
            "loss": mean.item(),
            "accuracy": right / mask.sum().item(),
            "perplexity": (mx.exp(mean) if of_mean else of_exps).item(),
        }

    return evaluation


def f_perplexity_of_tokens():
    """Perplexity is the mean of the tokens' exponentials instead of the exponential of their mean."""
    return setup("mean of exponentials", evaluate=perplexity(of_mean=False))


def ok_perplexity_of_tokens():
    return setup("exponential of the mean", evaluate=perplexity(of_mean=True))


def evaluate_tied(model, batches):
    """With the output layer a second time the embedding, as a checkpoint of tied weights would load."""
    apart = model.head.weight
    model.head.weight = model.embedding.weight
    result = evaluate(model, batches)
    model.head.weight = apart
    return result


def f_tied_in_evaluation_only():
    """Trained with two matrices, evaluated with one: the training's tie was lost on the way."""
    return setup("tied in evaluation only", evaluate=evaluate_tied)


class TiedStory(Story):
    def __init__(self):
        super().__init__()
        self.pop("head")
        self.embedding.weight = self.embedding.weight * 0.16

    def __call__(self, x, cache=None):
        h = self.embedding(x)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        return self.embedding.as_linear(self.norm(h))


def ok_tied_in_evaluation_only():
    return setup("tied always", TiedStory)
