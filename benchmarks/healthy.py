"""Healthy subjects that the ladder must not accuse: other architectures, optimisers, data and habits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map, tree_map_with_path
from zoo import (
    Bengio,
    CausalConvolution,
    CausalMixer,
    Decoder,
    ExponentialAverage,
    LinearAttention,
    MixtureOfExperts,
    Recurrent,
    as_texts,
    copying,
    counting,
    majority,
    markov,
    mlx_lm_model,
)

from mlxstories.batch import Batch
from mlxstories.faults.recipe import built_in
from mlxstories.ladder import Subject

HEALTHY: dict[str, Callable[[int], Subject]] = {}
"""Name to a function of the seed."""


def healthy(function: Callable[[int], Subject]) -> Callable[[int], Subject]:
    HEALTHY[function.__name__.replace("_", "-")] = function
    return function


def adam(rate: float = 1e-3, **options) -> Callable[[], optim.Optimizer]:
    return lambda: optim.AdamW(rate, bias_correction=True, **options)


def mean_loss(model: nn.Module, batch: Batch, **options) -> mx.array:
    nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets, **options)
    return (nats * batch.mask).sum() / batch.mask.sum()


@healthy
def built_in_recipe(seed: int) -> Subject:
    return built_in(seed)


# Architectures


@healthy
def three_fields_only(seed: int) -> Subject:
    data = markov(seed=seed)
    return Subject(
        model=lambda: Decoder(data.vocab_size),
        vocab_size=data.vocab_size,
        train_batches=data.fields()["train_batches"],
    )


def architecture(name: str, build: Callable[[int], nn.Module], **fields) -> None:
    def subject(seed: int) -> Subject:
        data = markov(seed=seed)
        return Subject(model=lambda: build(data.vocab_size), name=name, **{**data.fields(), **fields})

    HEALTHY[name] = subject


architecture("gru", Recurrent, optimizer=adam(3e-3))
architecture("lstm-two-layers", partial(Recurrent, cell=nn.LSTM, layers=2), optimizer=adam(3e-3))
architecture("causal-convolution", CausalConvolution)
architecture("bengio-mlp", Bengio)
architecture("no-positions", partial(Decoder, positions="none"))
architecture("alibi", partial(Decoder, positions="alibi"))
architecture("sliding-window", partial(Decoder, window=6))
architecture("mixture-of-experts", partial(Decoder, mlp=MixtureOfExperts))
architecture("tied-embedding", partial(Decoder, tied=True))
architecture("zero-init-branches-and-head", partial(Decoder, zero_init=True))
architecture("post-norm", partial(Decoder, pre_norm=False))
architecture("causal-mixer", partial(Decoder, mixer=CausalMixer))
architecture("linear-attention", partial(Decoder, mixer=LinearAttention))
architecture("state-space", partial(Decoder, mixer=ExponentialAverage, positions="none"))
architecture("six-layers", partial(Decoder, dim=32, layers=6, heads=2))
architecture("mlx-lm-llama", partial(mlx_lm_model, "llama"))
architecture(
    "mlx-lm-gpt2",
    lambda vocab_size: mlx_lm_model(
        "gpt2",
        vocab_size,
        n_ctx=256,
        n_embd=64,
        n_head=4,
        n_layer=2,
        n_positions=256,
        layer_norm_epsilon=1e-5,
    ),
)
architecture("mlx-lm-qwen3", partial(mlx_lm_model, "qwen3"))
architecture("mlx-lm-gemma2", partial(mlx_lm_model, "gemma2", query_pre_attn_scalar=16.0))
architecture("mlx-lm-phi", partial(mlx_lm_model, "phi", partial_rotary_factor=0.5, num_key_value_heads=4))


@healthy
def dropout(seed: int) -> Subject:
    data = markov(seed=seed)
    return Subject(model=lambda: Decoder(data.vocab_size, dropout=0.1), **data.fields())


@healthy
def bfloat16(seed: int) -> Subject:
    data = markov(seed=seed)

    def model():
        decoder = Decoder(data.vocab_size)
        decoder.set_dtype(mx.bfloat16)
        return decoder

    return Subject(model=model, **data.fields())


class WithAuxiliaryOutput(Decoder):
    def __call__(self, tokens):
        logits = super().__call__(tokens)
        return logits, mx.logsumexp(logits, axis=-1)


@healthy
def tuple_output_and_z_loss(seed: int) -> Subject:
    """The logits come with their log-partition, which the loss keeps small (Chowdhery et al. 2022)."""
    data = markov(seed=seed)

    def loss(model, batch):
        logits, partition = model(batch.inputs)
        nats = nn.losses.cross_entropy(logits, batch.targets) + 1e-4 * partition.square()
        return (nats * batch.mask).sum() / batch.mask.sum()

    return Subject(model=lambda: WithAuxiliaryOutput(data.vocab_size), loss=loss, **data.fields())


@healthy
def frozen_positional_table(seed: int) -> Subject:
    data = markov(seed=seed)

    def model():
        decoder = Decoder(data.vocab_size)
        rates = 10000.0 ** -(np.arange(32) / 32)
        angles = np.arange(256)[:, None] * rates
        decoder.position.weight = mx.array(
            np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32) / 8
        )
        decoder.position.freeze()
        return decoder

    return Subject(model=model, **data.fields())


# Optimisers


def optimizer(name: str, build: Callable[[], optim.Optimizer]) -> None:
    architecture(name, Decoder, optimizer=build)


def warmup_cosine() -> optim.Optimizer:
    warmup = optim.linear_schedule(1e-5, 2e-3, 40)
    return optim.AdamW(
        optim.join_schedules([warmup, optim.cosine_decay(2e-3, 400)], [40]), bias_correction=True
    )


def muon() -> optim.Optimizer:
    def is_matrix(path, weight):
        return weight.ndim == 2 and "blocks" in path

    return optim.MultiOptimizer([optim.Muon(0.02), optim.AdamW(1e-3, bias_correction=True)], [is_matrix])


optimizer("sgd-momentum", lambda: optim.SGD(0.1, momentum=0.9))
optimizer("lion", lambda: optim.Lion(3e-4))
optimizer("muon", muon)
optimizer("adam-without-bias-correction", lambda: optim.Adam(1e-3))
optimizer("adafactor", lambda: optim.Adafactor(1e-2, relative_step=False, scale_parameter=False))
optimizer("warmup-cosine", warmup_cosine)
optimizer("rate-3e-4", adam(3e-4))
optimizer("rate-3e-3", adam(3e-3))
optimizer("rate-1e-2", adam(1e-2))


@healthy
def clipping(seed: int) -> Subject:
    data = markov(seed=seed)

    def train_step(model, optimizer, batch):
        loss, gradients = nn.value_and_grad(model, mean_loss)(model, batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return loss

    return Subject(
        model=lambda: Decoder(data.vocab_size), train_step=train_step, optimizer=adam(), **data.fields()
    )


@healthy
def accumulation(seed: int) -> Subject:
    """The batch in two halves, one update."""
    data = markov(seed=seed)

    def train_step(model, optimizer, batch):
        half = len(batch.inputs) // 2
        sums = None
        for part in (slice(None, half), slice(half, None)):
            micro = Batch(*(array[part] for array in batch))
            loss, gradients = nn.value_and_grad(model, mean_loss)(model, micro)
            sums = gradients if sums is None else tree_map(mx.add, sums, gradients)
        optimizer.update(model, tree_map(lambda g: g / 2, sums))
        return loss

    return Subject(
        model=lambda: Decoder(data.vocab_size), train_step=train_step, optimizer=adam(), **data.fields()
    )


@healthy
def summed_loss(seed: int) -> Subject:
    """Adam does not mind a loss that is summed over tokens."""
    data = markov(seed=seed)

    def loss(model, batch):
        return (nn.losses.cross_entropy(model(batch.inputs), batch.targets) * batch.mask).sum()

    return Subject(model=lambda: Decoder(data.vocab_size), loss=loss, optimizer=adam(), **data.fields())


@healthy
def label_smoothing(seed: int) -> Subject:
    data = markov(seed=seed)
    return Subject(
        model=lambda: Decoder(data.vocab_size), loss=partial(mean_loss, label_smoothing=0.1), **data.fields()
    )


@healthy
def largest_logit_stopped(seed: int) -> Subject:
    """The loss takes the largest logit off all others, and needs no gradient of it."""
    data = markov(seed=seed)

    def loss(model, batch):
        logits = model(batch.inputs)
        return mean_loss(lambda _: logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True)), batch)

    return Subject(model=lambda: Decoder(data.vocab_size), loss=loss, **data.fields())


# Data


def data(name: str, language: Callable, batch_size: int = 16, build: Callable = Decoder, **fields) -> None:
    def subject(seed: int) -> Subject:
        spoken = language(seed=seed)
        known = {"floor": spoken.floor} if name != "majority-token" else {}
        return Subject(
            model=lambda: build(spoken.vocab_size), name=name, **spoken.fields(batch_size), **known, **fields
        )

    HEALTHY[name] = subject


data("known-floor", markov)
data("tiny-vocabulary", partial(markov, vocab_size=12, branching=3))
data(
    "large-vocabulary",
    partial(markov, vocab_size=8192, rows=384),
    build=partial(Decoder, dim=32, heads=2, tied=True),
)
data("low-entropy", partial(markov, branching=2, skew=2.0))
data("deterministic", counting, optimizer=adam(3e-3))
data("copying", copying, optimizer=adam(3e-3))
data("majority-token", majority)
data("eight-rows", partial(markov, rows=8), batch_size=8)
data("batch-of-one", partial(markov, rows=256), batch_size=1)
data("long-rows", partial(markov, rows=64, length=128), batch_size=4)
data("short-rows", partial(markov, rows=1024, length=6))


@healthy
def padded_rows(seed: int) -> Subject:
    language = markov(seed=seed)
    rng = np.random.default_rng(seed)
    train_lengths = rng.integers(6, 33, size=len(language.train))
    val_lengths = rng.integers(6, 33, size=len(language.val))

    def train_batches(seed: int):
        order = np.random.default_rng(seed).permutation(len(language.train))
        return language.batches(language.train[order], 16, train_lengths[order])

    return Subject(
        model=lambda: Decoder(language.vocab_size),
        vocab_size=language.vocab_size,
        train_batches=train_batches,
        val_batches=lambda: language.batches(language.val, 16, val_lengths),
        evaluate=own_evaluate,
    )


@healthy
def rows_of_changing_length(seed: int) -> Subject:
    """Every batch is as long as its longest row."""
    language = markov(seed=seed)

    def trimmed(batches):
        for index, batch in enumerate(batches):
            length = (16, 24, 32)[index % 3]
            yield Batch(*(array[:, :length] for array in batch))

    fields = language.fields()
    return Subject(
        model=lambda: Decoder(language.vocab_size),
        vocab_size=language.vocab_size,
        train_batches=lambda seed: trimmed(fields["train_batches"](seed)),
        val_batches=lambda: trimmed(fields["val_batches"]()),
    )


@healthy
def tuples_without_mask(seed: int) -> Subject:
    language = markov(seed=seed)
    fields = language.fields()

    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch[0]), batch[1], reduction="mean")

    return Subject(
        model=lambda: Decoder(language.vocab_size),
        vocab_size=language.vocab_size,
        train_batches=lambda seed: ((b.inputs, b.targets) for b in fields["train_batches"](seed)),
        loss=loss,
    )


@healthy
def stream_of_windows(seed: int) -> Subject:
    """nanoGPT's habit: windows at random places of one long string, the same order for no two seeds."""
    language = markov(rows=256, length=63, seed=seed)
    stream = language.train.reshape(-1)

    def train_batches(seed: int):
        rng = np.random.default_rng(seed)
        for _ in range(64):
            starts = rng.integers(0, len(stream) - 33, size=16)
            rows = stream[starts[:, None] + np.arange(33)]
            yield from language.batches(rows, 16)

    return Subject(
        model=lambda: Decoder(language.vocab_size),
        vocab_size=language.vocab_size,
        train_batches=train_batches,
    )


# Evaluation, generation, tokenizer


def own_evaluate(model: nn.Module, batches) -> dict[str, float]:
    model.eval()
    nats = hits = tokens = 0.0
    for batch in batches:
        logits = model(batch.inputs)
        each = nn.losses.cross_entropy(logits, batch.targets)
        nats += (each * batch.mask).sum().item()
        hits += ((mx.argmax(logits, axis=-1) == batch.targets) * batch.mask).sum().item()
        tokens += batch.mask.sum().item()
    return {"loss": nats / tokens, "accuracy": hits / tokens}


def own_generate(model: nn.Module, prompt: list[int], n: int) -> list[int]:
    """Greedy, without a cache."""
    model.eval()
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1]).item()))
    return tokens[len(prompt) :]


@healthy
def everything_given(seed: int) -> Subject:
    language = markov(seed=seed)
    texts = as_texts(language)
    return Subject(
        model=lambda: Decoder(language.vocab_size, dropout=0.1),
        optimizer=adam(),
        loss=mean_loss,
        evaluate=own_evaluate,
        generate=own_generate,
        tokenizer=texts.tokenizer,
        train_texts=texts.train,
        val_texts=texts.val,
        floor=language.floor,
        **language.fields(),
    )


@healthy
def mlx_lm_generation(seed: int) -> Subject:
    """mlx-lm's llama decodes with mlx-lm's own key-value cache."""
    language = markov(seed=seed)

    def generate(model, prompt, n):
        from mlx_lm.models.cache import make_prompt_cache

        cache, tokens, out = make_prompt_cache(model), mx.array([prompt]), []
        for _ in range(n):
            best = mx.argmax(model(tokens, cache=cache)[:, -1], axis=-1)
            out.append(best.item())
            tokens = best[None]
        return out

    return Subject(
        model=lambda: mlx_lm_model("llama", language.vocab_size),
        generate=generate,
        **language.fields(),
    )


@healthy
def scaled_initialisation(seed: int) -> Subject:
    """GPT-2's initialisation: every matrix at 0.02."""
    language = markov(seed=seed)

    def model():
        decoder = Decoder(language.vocab_size)
        decoder.update(
            tree_map_with_path(
                lambda path, weight: 0.02 * mx.random.normal(weight.shape) if weight.ndim == 2 else weight,
                decoder.parameters(),
            )
        )
        return decoder

    return Subject(model=model, **language.fields())
