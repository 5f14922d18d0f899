"""A small character model of the built-in stories, sound, in parts that a reported mistake can take the place of."""

from __future__ import annotations

import re
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxstories.data.source import texts
from mlxstories.ladder import Subject

T, B, D, H = 48, 16, 64, 4
TOLD, HELD = list(texts(170, "reported")), list(texts(20, "reported, held out"))
ALPHABET = sorted(set("".join(TOLD + HELD)))
PAD, BOS, EOS = range(3)
V = len(ALPHABET) + 3


class Letters:
    """One id for each character, after those of padding, beginning and end."""

    vocab_size, pad_id, bos_id, eos_id = V, PAD, BOS, EOS

    def encode(self, text):
        return [ALPHABET.index(c) + 3 for c in text]

    def decode(self, ids):
        return "".join(ALPHABET[i - 3] for i in map(int, ids) if i >= 3)


@cache
def windows(part):
    """int32 [N, T + 1]: the stories in a row, cut up."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)
    starts = range(0, len(ids) - T, T)
    return np.stack([ids[start : start + T + 1] for start in starts])


@cache
def sentences(part):
    """Sentences of 8 to T - 2 characters, none of them in both parts."""
    stories = " ".join(texts(900, "short") if part == "train" else texts(120, "short, held out"))
    known = set() if part == "train" else set(sentences("train"))
    whole = dict.fromkeys(s for s in re.split(r"(?<=[.!?])\s", stories) if set(s) <= set(ALPHABET))
    return [s for s in whole if 8 <= len(s) <= T - 2 and s not in known]


@cache
def padded(part):
    """int32 [N, T + 1]: beginning, sentence, end, padding."""
    table = np.full((len(sentences(part)), T + 1), PAD, np.int32)
    for row, sentence in zip(table, sentences(part), strict=True):
        row[: len(sentence) + 2] = [BOS, *Letters().encode(sentence), EOS]
    return table


def deal(table, seed=None, counts=lambda row: row[:, 1:] != PAD):
    """One epoch of (inputs, targets, mask), shuffled where there is a seed."""
    order = np.arange(len(table)) if seed is None else np.random.default_rng(seed).permutation(len(table))
    for at in range(0, len(table) - B + 1, B):
        rows = table[order[at : at + B]]
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.array(counts(rows).astype(np.float32))


class Cache:
    """Keys and values of one layer so far."""

    def __init__(self):
        self.kept, self.offset = None, 0

    def update(self, *new):
        old = self.kept
        self.kept = (
            new if old is None else tuple(mx.concatenate(pair, axis=2) for pair in zip(old, new, strict=True))
        )
        self.offset += new[0].shape[2]
        return self.kept


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.rope = nn.RoPE(D // H)

    def heads(self, x):
        return x.reshape(*x.shape[:2], H, D // H).swapaxes(1, 2)

    def turned(self, q, k, cache):
        offset = cache.offset if cache else 0
        return self.rope(q, offset=offset), self.rope(k, offset=offset)

    def bias(self, queries, keys):
        """[queries, keys], added to the scores."""
        return mx.where(mx.tril(mx.ones((queries, keys)), k=keys - queries) > 0, 0.0, -1e9)

    def weights(self, scores):
        return mx.softmax(scores, axis=-1)

    def __call__(self, x, cache=None):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.turned(q, k, cache)
        if cache:
            k, v = cache.update(k, v)
        scores = q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(q.shape[2], k.shape[2])
        return self.o((self.weights(scores) @ v).swapaxes(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def __call__(self, x):
        return self.down(nn.gelu_approx(self.up(x)))


class Block(nn.Module):
    def __init__(self, attention=Attention, norm=lambda: nn.RMSNorm(D)):
        super().__init__()
        self.attention, self.feed_forward, self.n1, self.n2 = attention(), FeedForward(), norm(), norm()

    def __call__(self, x, cache=None):
        x = x + self.attention(self.n1(x), cache)
        return x + self.feed_forward(self.n2(x))


class Story(nn.Module):
    def __init__(self, block=Block, layers=2, size=V, **parts):
        super().__init__()
        self.embedding = nn.Embedding(size, D)
        self.blocks = [block(**parts) for _ in range(layers)]
        self.norm, self.head = nn.RMSNorm(D), nn.Linear(D, size, bias=False)

    def embed(self, x):
        return self.embedding(x)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for i, block in enumerate(self.blocks):
            h = block(h, cache[i]) if cache else block(h)
        return self.head(self.norm(h))


def nats(logits, targets):
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets, reduction="none")


def mean_nats(model, batch):
    x, y, mask = batch
    return (nats(model(x), y) * mask).sum() / mask.sum()


def adamw(rate=2e-3, **more):
    return lambda: optim.AdamW(rate, bias_correction=True, **more)


def step_of(loss):
    def step(model, optimizer, batch):
        value, gradient = nn.value_and_grad(model, loss)(model, batch)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        return value

    return step


def evaluate(model, batches):
    """Nats and accuracy per token that counts."""
    model.eval()
    total = right = count = 0.0
    for x, y, mask in batches:
        logits = model(x)
        total += (nats(logits, y) * mask).sum().item()
        right += ((logits.argmax(-1) == y) * mask).sum().item()
        count += mask.sum().item()
    model.train()
    return {"loss": total / count, "accuracy": right / count}


def tell(model, prompt, n):
    """Greedy, a whole forward pass for each token."""
    model.eval()
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(mx.array([ids]))[0, -1].argmax().item()))
    model.train()
    return ids[len(prompt) :]


def tell_cached(model, prompt, n, make=Cache):
    """Greedy, with a cache."""
    model.eval()
    cache, new, told = [make() for _ in model.blocks], list(prompt), []
    for _ in range(n):
        new = [int(model(mx.array([new]), cache)[0, -1].argmax().item())]
        told += new
    model.train()
    return told


def setup(name, model=Story, loss=mean_nats, **changes):
    """Windows of running text."""
    given = {
        "name": name,
        "model": model,
        "vocab_size": V,
        "loss": loss,
        "train_step": step_of(loss),
        "optimizer": adamw(),
        "train_batches": lambda seed: deal(windows("train"), seed),
        "val_batches": lambda: deal(windows("val")),
        "evaluate": evaluate,
        "generate": tell,
        "tokenizer": Letters(),
        "train_texts": TOLD,
        "val_texts": HELD,
    }
    return Subject(**given | changes)


def on_sentences(name, model=Story, loss=mean_nats, **changes):
    """A sentence a row, padded."""
    given = {
        "train_batches": lambda seed: deal(padded("train"), seed),
        "val_batches": lambda: deal(padded("val")),
        "train_texts": sentences("train"),
        "val_texts": sentences("val"),
    }
    return setup(name, model, loss, **given | changes)
