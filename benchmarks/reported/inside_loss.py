"""Reported mistakes of loss and data, and their mends."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np
from base import (
    BOS,
    EOS,
    HELD,
    PAD,
    TOLD,
    B,
    Letters,
    Story,
    T,
    V,
    deal,
    nats,
    on_sentences,
    padded,
    sentences,
    setup,
)


def shifted_twice(model, batch):
    """All rows in one line, the logits one place behind the targets, which were shifted before."""
    x, y, mask = batch
    logits = model(x).reshape(-1, V)[:-1]
    return (nats(logits, y.reshape(-1)[1:]) * mask.reshape(-1)[1:]).sum() / mask.sum()


def f_shifted_twice():
    """The loss shifts targets that are shifted already, over the ends of rows."""
    return setup("shifted twice", loss=shifted_twice)


def from_channels_first(moved):
    def loss(model, batch):
        x, y, mask = batch
        logits = model(x).swapaxes(1, 2)  # [B, V, T], as other libraries' losses want them
        rows = (logits.swapaxes(1, 2) if moved else logits).reshape(-1, V)
        return (nats(rows, y.reshape(-1)) * mask.reshape(-1)).sum() / mask.sum()

    return loss


def f_reshaped_only():
    """Logits with channels first are reshaped to rows of the vocabulary, and not transposed."""
    return setup("reshaped, not transposed", loss=from_channels_first(False))


def ok_reshaped_only():
    return setup("transposed and reshaped", loss=from_channels_first(True))


def smoothed(inverted, share=0.1):
    def loss(model, batch):
        x, y, mask = batch
        logits = model(x)
        log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        wanted = (1 - share) * (mx.arange(V) == y[..., None]) + share / V
        wanted = mx.where((mask == (0 if inverted else 1))[..., None], wanted, 0)
        return -(wanted * log_p).sum() / mask.sum()

    return loss


def f_smoothing_of_padding():
    """The mask of label smoothing is turned round: padding is learnt, and nothing else."""
    return on_sentences("smoothing of padding", loss=smoothed(True))


def ok_smoothing_of_padding():
    return on_sentences("smoothing of what counts", loss=smoothed(False))


class EndIsPadding(Letters):
    pad_id = EOS


@cache
def padded_with_end(part):
    table = padded(part)
    return np.where(table == PAD, EOS, table)


def ended(first_end):
    """Padding is the end's id; the mask goes by the id, with the first end counted or not."""

    def counts(rows):
        real = rows[:, 1:] != EOS
        return real | (rows[:, :-1] != EOS) if first_end else real

    return {
        "train_batches": lambda seed: deal(padded_with_end("train"), seed, counts),
        "val_batches": lambda: deal(padded_with_end("val"), None, counts),
        "tokenizer": EndIsPadding(),
    }


def f_end_is_padding():
    """The end is the padding too, and is masked with it: no text is ever ended."""
    return on_sentences("end masked as padding", **ended(False))


def ok_end_is_padding():
    return on_sentences("first end counted", **ended(True))


def one_more(rows):
    real = rows[:, 1:] != PAD
    return real | (rows[:, :-1] != PAD)


def f_padding_after_end():
    """The mask by lengths is one too long: each sentence teaches one padding after its end."""
    return on_sentences(
        "one padding trained",
        train_batches=lambda seed: deal(padded("train"), seed, one_more),
        val_batches=lambda: deal(padded("val"), None, one_more),
    )


class Pairs:
    """Two characters a token."""

    pad_id = PAD

    def __init__(self):
        self.known = sorted({text[i : i + 2] for text in TOLD + HELD for i in range(0, len(text), 2)})
        self.ids = {pair: i + 1 for i, pair in enumerate(self.known)}
        self.vocab_size = len(self.known) + 1

    def encode(self, text):
        return [self.ids[text[i : i + 2]] for i in range(0, len(text), 2)]

    def decode(self, ids):
        return "".join(self.known[int(i) - 1] for i in ids if i > 0)


def of_pairs(kind):
    pairs = Pairs()

    def table(texts):
        ids = np.concatenate([pairs.encode(text) for text in texts])
        ids = ids.astype(kind).astype(np.int32)
        return np.stack([ids[start : start + T + 1] for start in range(0, len(ids) - T, T)])

    return {
        "model": lambda: Story(size=pairs.vocab_size),
        "vocab_size": pairs.vocab_size,
        "tokenizer": pairs,
        "train_batches": lambda seed: deal(table(TOLD), seed),
        "val_batches": lambda: deal(table(HELD)),
    }


def f_ids_wrapped():
    """Ids up to some five hundred are written as bytes, and those above 255 become others."""
    return setup("ids wrapped", **of_pairs(np.uint8))


def ok_ids_wrapped():
    return setup("ids whole", **of_pairs(np.uint16))


def fitted(drops, room=40, waiting=100):
    """Rows of 40 tokens, each filled from a buffer with the longest sentence that fits. One that never fits
    is dropped, or waits for ever."""

    def batches(seed):
        order = np.random.default_rng(seed).permutation(len(sentences("train")))
        texts = iter([sentences("train")[i] for i in order])
        buffer, rows = [], []
        for _ in range(len(order)):
            while len(buffer) < waiting and (text := next(texts, None)):
                ids = [BOS, *Letters().encode(text), EOS]
                if not (drops and len(ids) > room + 1):
                    buffer.append(ids)
            row = max((ids for ids in buffer if len(ids) <= room + 1), key=len, default=[])
            if row:
                buffer.remove(row)
            elif drops:
                return
            rows.append(row + [PAD] * (room + 1 - len(row)))
            if len(rows) == B:
                yield from deal(np.array(rows, np.int32))
                rows = []

    return batches


def guarded(model, batch):
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum() / mx.maximum(mask.sum(), 1)


def f_buffer_clogged():
    """What is longer than a row never leaves the buffer; once that is full of it, rows hold padding alone."""
    return on_sentences("buffer clogged", loss=guarded, train_batches=fitted(False))


def ok_buffer_clogged():
    return on_sentences("buffer cleared", loss=guarded, train_batches=fitted(True))


def f_short_dropped():
    """Without packing, texts shorter than a row are left out: of all sentences the longest remain."""
    table = padded("train")
    full = table[(table != PAD).sum(1) >= T - 2]
    return on_sentences("short texts dropped", train_batches=lambda seed: deal(full, seed))


def f_sorted_by_length():
    """Batches come in order of length, the same in every epoch."""
    table = padded("train")
    table = table[np.argsort((table != PAD).sum(1), kind="stable")]
    return on_sentences("sorted by length", train_batches=lambda seed: deal(table))


def answers(early):
    """Sentences of which the last third is asked for; the mask begins at its first token, or one later, and ends
    with the end, or one later."""

    def counts(rows):
        lengths = (rows != PAD).sum(1, keepdims=True)
        places = np.arange(1, rows.shape[1]) - (0 if early else 1)
        return (places >= 2 * lengths // 3) & (places < lengths)

    return {
        "train_batches": lambda seed: deal(padded("train"), seed, counts),
        "val_batches": lambda: deal(padded("val"), None, counts),
    }


def f_answers_one_late():
    """The mask of answers is not shifted with the targets: the first token is never learnt, and a padding is."""
    return on_sentences("answers one late", **answers(False))


def ok_answers_one_late():
    return on_sentences("answers", **answers(True))


def ok_sentences():
    return on_sentences("sentences")
