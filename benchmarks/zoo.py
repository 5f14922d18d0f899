"""Small models and languages for the ladder's healthy subjects, written the way users write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.batch import Batch


@dataclass(frozen=True)
class Language:
    """Rows of tokens and the true entropy floor of what follows them, in nats per token."""

    vocab_size: int
    train: np.ndarray
    val: np.ndarray
    floor: float

    def batches(self, rows: np.ndarray, size: int, lengths: np.ndarray | None = None) -> Iterator[Batch]:
        size = min(size, len(rows))
        for start in range(0, len(rows) - size + 1, size):
            part = rows[start : start + size]
            mask = np.ones(part[:, 1:].shape, dtype=np.float32)
            if lengths is not None:
                mask = (np.arange(mask.shape[1]) < lengths[start : start + size, None]).astype(np.float32)
                part = np.where(np.arange(part.shape[1]) <= lengths[start : start + size, None], part, 0)
            yield Batch(
                mx.array(part[:, :-1].astype(np.int32)),
                mx.array(part[:, 1:].astype(np.int32)),
                mx.array(mask),
            )

    def fields(self, batch_size: int = 16) -> dict:
        """The data fields of a subject, in a new order for every seed."""

        def train_batches(seed: int) -> Iterator[Batch]:
            order = np.random.default_rng(seed).permutation(len(self.train))
            return self.batches(self.train[order], batch_size)

        return {
            "vocab_size": self.vocab_size,
            "train_batches": train_batches,
            "val_batches": lambda: self.batches(self.val, batch_size),
        }


def markov(
    vocab_size: int = 64,
    rows: int = 512,
    length: int = 32,
    seed: int = 0,
    branching: int = 4,
    skew: float = 1.0,
) -> Language:
    """A random Markov chain: each token has ``branching`` successors with probabilities like 1 / rank^skew.
    The successors are drawn by rank too, so that some tokens are common and most are rare."""
    rng = np.random.default_rng(seed)
    common = 1 / np.arange(2, vocab_size + 2)
    successors = np.stack(
        [rng.choice(vocab_size, branching, replace=False, p=common / common.sum()) for _ in range(vocab_size)]
    )
    odds = 1 / np.arange(1, branching + 1) ** skew
    odds /= odds.sum()
    tokens = np.empty((rows + 64, length + 1), dtype=np.int64)
    tokens[:, 0] = rng.integers(vocab_size, size=len(tokens))
    for t in range(length):
        tokens[:, t + 1] = successors[tokens[:, t], rng.choice(branching, size=len(tokens), p=odds)]
    floor = float(-(odds * np.log(odds)).sum())
    return Language(vocab_size, tokens[64:], tokens[:64], floor)


def counting(vocab_size: int = 20, rows: int = 256, length: int = 24, seed: int = 0) -> Language:
    """Arithmetic progressions modulo the vocabulary: after two tokens everything is certain."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(vocab_size * vocab_size)[: rows + 32]
    start, stride = np.divmod(pairs, vocab_size)
    tokens = (start[:, None] + stride[:, None] * np.arange(length + 1)) % vocab_size
    return Language(vocab_size, tokens[32:], tokens[:32], float(np.log(vocab_size) / length))


def copying(vocab_size: int = 24, rows: int = 512, half: int = 12, seed: int = 0) -> Language:
    """A random string, a separator (id 0), and the string again: certain to one who looks back."""
    rng = np.random.default_rng(seed)
    string = rng.integers(1, vocab_size, size=(rows + 64, half))
    tokens = np.concatenate([string, np.zeros((len(string), 1), dtype=np.int64), string], axis=1)
    return Language(
        vocab_size, tokens[64:], tokens[:64], float((half - 1) / (2 * half) * np.log(vocab_size - 1))
    )


def majority(vocab_size: int = 48, rows: int = 512, length: int = 32, seed: int = 0) -> Language:
    """Seven tokens of ten are the same one; the others follow a chain among themselves."""
    chain = markov(vocab_size - 1, rows, length, seed)
    rng = np.random.default_rng(seed + 1)

    def dilute(tokens: np.ndarray) -> np.ndarray:
        return np.where(rng.random(tokens.shape) < 0.7, 0, tokens + 1)

    return Language(vocab_size, dilute(chain.train), dilute(chain.val), 0.6)


def causal_mask(length: int) -> mx.array:
    return nn.MultiHeadAttention.create_additive_causal_mask(length)


class Decoder(nn.Module):
    """A transformer with the usual switches."""

    def __init__(
        self,
        vocab_size: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        *,
        norm: type = nn.LayerNorm,
        pre_norm: bool = True,
        positions: str = "learned",
        window: int | None = None,
        tied: bool = False,
        zero_init: bool = False,
        dropout: float = 0.0,
        mixer: Callable[[int], nn.Module] | None = None,
        mlp: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        if positions == "learned":
            self.position = nn.Embedding(256, dim)
        self.positions, self.window, self.pre_norm = positions, window, pre_norm
        self.blocks = [DecoderBlock(dim, heads, norm, dropout, mixer, mlp) for _ in range(layers)]
        self.norm = norm(dim)
        if not tied:
            self.head = nn.Linear(dim, vocab_size, bias=False)
        if zero_init:
            for block in self.blocks:
                block.mixer.out_proj.weight = mx.zeros((dim, dim))
                block.mlp.down.weight = mx.zeros_like(block.mlp.down.weight)
                block.mlp.down.bias = mx.zeros_like(block.mlp.down.bias)
            if not tied:
                self.head.weight = mx.zeros_like(self.head.weight)

    def __call__(self, tokens: mx.array) -> mx.array:
        length = tokens.shape[1]
        x = self.embed(tokens)
        if self.positions == "learned":
            x = x + self.position(mx.arange(length))
        if self.positions == "sinusoidal":
            rates = mx.exp(mx.arange(0, x.shape[-1], 2) * (-np.log(10000.0) / x.shape[-1]))
            angles = mx.arange(length)[:, None] * rates
            x = x * x.shape[-1] ** 0.5 + mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)
        mask = causal_mask(length)
        if self.window is not None:
            index = mx.arange(length)
            mask = mx.where(index[:, None] - index[None] >= self.window, -mx.inf, mask)
        if self.positions == "alibi":
            index = mx.arange(length)
            mask = mask - 0.25 * mx.abs(index[:, None] - index[None])
        for block in self.blocks:
            x = block(x, mask.astype(x.dtype), self.pre_norm)
        x = self.norm(x)
        return self.head(x) if "head" in self else self.embed.as_linear(x)


class DecoderBlock(nn.Module):
    def __init__(self, dim, heads, norm, dropout, mixer, mlp):
        super().__init__()
        self.mixer = nn.MultiHeadAttention(dim, heads) if mixer is None else mixer(dim)
        self.mlp = FeedForward(dim) if mlp is None else mlp(dim)
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.dropout = nn.Dropout(dropout)

    def __call__(self, x: mx.array, mask: mx.array, pre_norm: bool) -> mx.array:
        def mix(y):
            attention = isinstance(self.mixer, nn.MultiHeadAttention)
            return self.dropout(self.mixer(y, y, y, mask) if attention else self.mixer(y))

        if pre_norm:
            x = x + mix(self.norm1(x))
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x + mix(x))
        return self.norm2(x + self.dropout(self.mlp(x)))


class FeedForward(nn.Module):
    def __init__(self, dim: int, activation=nn.gelu):
        super().__init__()
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.down(self.activation(self.up(x)))


class MixtureOfExperts(nn.Module):
    """Top-1 routing with the gate's probability as weight (Fedus et al. 2021); experts computed densely."""

    def __init__(self, dim: int, experts: int = 4):
        super().__init__()
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = [FeedForward(dim) for _ in range(experts)]

    def __call__(self, x: mx.array) -> mx.array:
        probabilities = mx.softmax(self.gate(x), axis=-1)
        best = mx.argmax(probabilities, axis=-1, keepdims=True)
        chosen = mx.arange(len(self.experts)) == best
        outputs = mx.stack([expert(x) for expert in self.experts], axis=-2)
        return (outputs * (probabilities * chosen)[..., None]).sum(axis=-2)


class CausalMixer(nn.Module):
    """One learned lower-triangular matrix mixes the positions of every channel (a causal MLP-Mixer)."""

    def __init__(self, dim: int, length: int = 128):
        super().__init__()
        self.weight = mx.random.normal((length, length)) * 0.1
        self.out_proj = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        length = x.shape[1]
        return self.out_proj(mx.tril(self.weight[:length, :length]) @ x)


class LinearAttention(nn.Module):
    """Causal linear attention by a decaying sum over the past (Katharopoulos et al. 2020)."""

    def __init__(self, dim: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        q, k = nn.elu(self.query(x)) + 1, nn.elu(self.key(x)) + 1
        scores = mx.tril(q @ k.swapaxes(-1, -2))
        return self.out_proj(scores @ self.value(x) / scores.sum(axis=-1, keepdims=True))


class ExponentialAverage(nn.Module):
    """A diagonal linear recurrence, the simplest state-space layer."""

    def __init__(self, dim: int):
        super().__init__()
        self.decay = mx.random.uniform(0.0, 3.0, (dim,))
        self.in_proj, self.gate, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        index = mx.arange(x.shape[1])
        age = mx.maximum(index[:, None] - index[None], 0)[..., None]
        weights = mx.power(mx.sigmoid(self.decay), age) * (index[:, None] >= index[None])[..., None]
        mixed = mx.einsum("tsd,bsd->btd", weights, self.in_proj(x))
        return self.out_proj(mixed * nn.silu(self.gate(x)))


class Recurrent(nn.Module):
    """Embedding, a GRU or LSTM, a head."""

    def __init__(self, vocab_size: int, dim: int = 64, cell: type = nn.GRU, layers: int = 1):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        self.cells = [cell(dim, dim) for _ in range(layers)]
        self.head = nn.Linear(dim, vocab_size)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for cell in self.cells:
            x = cell(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


class CausalConvolution(nn.Module):
    """Dilated convolutions padded on the left (van den Oord et al. 2016)."""

    def __init__(self, vocab_size: int, dim: int = 64, kernel: int = 3, layers: int = 3):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        self.convolutions = [nn.Conv1d(dim, dim, kernel, dilation=2**i) for i in range(layers)]
        self.norms = [nn.RMSNorm(dim) for _ in range(layers)]
        self.head = nn.Linear(dim, vocab_size)
        self.kernel = kernel

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for i, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            padded = mx.pad(norm(x), [(0, 0), ((self.kernel - 1) * 2**i, 0), (0, 0)])
            x = x + nn.gelu(convolution(padded))
        return self.head(x)


class Bengio(nn.Module):
    """A multilayer perceptron over the last three tokens (Bengio et al. 2003)."""

    def __init__(self, vocab_size: int, dim: int = 32):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        self.hidden = nn.Linear(3 * dim, 4 * dim)
        self.head = nn.Linear(4 * dim, vocab_size)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        shifted = [mx.pad(x, [(0, 0), (i, 0), (0, 0)])[:, : x.shape[1]] for i in range(3)]
        return self.head(mx.tanh(self.hidden(mx.concatenate(shifted, axis=-1))))


def mlx_lm_model(name: str, vocab_size: int, **extra) -> nn.Module:
    """An architecture of mlx-lm with a tiny random configuration."""
    import importlib

    module = importlib.import_module(f"mlx_lm.models.{name}")
    shape = {
        "model_type": name,
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "layer_norm_eps": 1e-5,
        "head_dim": 16,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        **extra,
    }
    return module.Model(module.ModelArgs.from_dict(shape))


class WordTokenizer:
    """Words to ids by a list; what is not in the list is id 0."""

    def __init__(self, words: list[str]):
        self.words = words
        self.ids = {word: index for index, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(word, 0) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i] for i in ids)


def as_texts(language: Language) -> SimpleNamespace:
    """The rows of a language as texts, with the tokenizer that reads them."""
    tokenizer = WordTokenizer([f"w{i}" for i in range(language.vocab_size)])
    return SimpleNamespace(
        tokenizer=tokenizer,
        train=[tokenizer.decode(row) for row in language.train],
        val=[tokenizer.decode(row) for row in language.val],
    )
