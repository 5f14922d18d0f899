"""Twins of faults of the optimisation, of evaluation and generation, and of results."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers
import numpy as np

from mlxstories.batch import Batch
from mlxstories.faults.data import read, retold
from mlxstories.faults.fault import change, optimizer, phase, shape
from mlxstories.faults.recipe import Recipe, evaluate, generate
from mlxstories.faults.reported_later import Running, waiting_for
from mlxstories.faults.twins.data import repeated
from mlxstories.faults.twins.twin import Twins, without_floor
from mlxstories.model import KVCache
from mlxstories.optim import ScheduleConfig

TWINS = Twins()


# Optimisation


def from_zero(phase, updates):
    warmup = mlx.optimizers.linear_schedule(0.0, 1e-3, 50)
    return mlx.optimizers.AdamW(warmup, bias_correction=True, weight_decay=0.0)


def uncorrected_through_warmup(phase, updates):
    """Over 1000 updates of the healthy recipe it reaches 1.402 nats, bias corrected 1.390 (seed 0)."""
    ways = [mlx.optimizers.linear_schedule(0.0, 1e-2, 300), mlx.optimizers.linear_schedule(1e-2, 0.0, 700)]
    rate = mlx.optimizers.join_schedules(ways, [300])
    return mlx.optimizers.AdamW(rate, betas=[0.9, 0.9999], weight_decay=0.0)


TWINS.add(
    "no-update", "first-rate-0", "the rate of the first step is 0: warmup", change(build_optimizer=from_zero)
)
TWINS.add(
    "state-not-kept",
    "no-first-moment",
    "AdamW with betas 0 and 0.99: no gradient but the latest steers a step",
    optimizer(betas=(0.0, 0.99)),
)
TWINS.add(
    "extreme-constants",
    "epsilon-1e-6-and-beta2-0.9",
    "an epsilon of 1e-6 and betas of 0.9 both",
    optimizer(eps=1e-6, betas=(0.9, 0.9)),
)
TWINS.add("clipping-too-tight", "clip-at-0.1", "AdamW with gradients clipped to 0.1", phase(clip_norm=0.1))
TWINS.add(
    "warmup-too-long",
    "warmup-of-30-percent",
    "warmup over 30 % of the run",
    phase(schedule=ScheduleConfig("warmup_linear", warmup=0.3)),
)
TWINS.add("weight-decay-too-large", "decay-0.1", "a decay of 0.1", optimizer(weight_decay=0.1, decay="all"))
TWINS.add(
    "no-bias-correction",
    "warmup-of-300",
    "no bias correction, with betas 0.9 and 0.9999 at 1e-2, through a warmup of 300 updates that does for it",
    change(build_optimizer=uncorrected_through_warmup),
)
TWINS.add("learning-rate-too-large", "rate-3e-3", "a learning rate of 3e-3", optimizer(learning_rate=3e-3))
TWINS.add("learning-rate-too-small", "rate-3e-4", "a learning rate of 3e-4", optimizer(learning_rate=3e-4))

# Evaluation, generation, results


def in_fives(model, batches) -> dict[str, float]:
    """Evaluation in batches of five, the last one shorter."""
    whole = Batch(*(mx.concatenate(arrays) for arrays in zip(*batches, strict=True)))
    starts = range(0, len(whole.inputs), 5)
    return evaluate(model, [Batch(*(array[start : start + 5] for array in whole)) for start in starts])


def trimmed(model, batches) -> dict[str, float]:
    """Evaluation of batches cut to their longest story."""
    longest = [(batch, int(batch.mask.sum(axis=1).max())) for batch in batches]
    return evaluate(model, [Batch(*(array[:, :length] for array in batch)) for batch, length in longest])


def prompt_and_continuation(model, prompt, n):
    return [*prompt, *generate(model, prompt, n)]


def in_pieces(model, prompt, n):
    model.eval()
    cache, told = KVCache(model.config, 1), []
    for at in range(0, len(prompt), 2):
        logits = model(mx.array([prompt[at : at + 2]]), cache)
    for _ in range(min(n, model.config.context - len(prompt))):
        told.append(int(mx.argmax(logits[0, -1]).item()))
        logits = (
            model(mx.array([told[-1:]]), cache) if len(prompt) + len(told) < model.config.context else logits
        )
    return told


def sentences_shuffled(recipe: Recipe) -> Recipe:
    """An order drawn at random only adds to the entropy, so the floor stays one."""
    rng = np.random.default_rng(0)

    def shuffle(texts):
        return [". ".join(rng.permutation(text.removesuffix(".").split(". "))) + "." for text in texts]

    return read(recipe, train=shuffle(recipe.train_texts), val=shuffle(recipe.val_texts))


TWINS.add("dropout-in-evaluation", "dropout-of-0.2", "dropout that evaluation turns off", shape(dropout=0.2))
TWINS.add("wrong-loss", "smoothed-by-0.3", "smoothing by 0.3 in training", phase(label_smoothing=0.3))
TWINS.add("smoothed-validation-loss", "smoothing", "smoothing in training alone", phase(label_smoothing=0.1))
TWINS.add(
    "padding-in-accuracy",
    "rows-trimmed",
    "validation cuts batches to their longest story",
    change(evaluate=trimmed),
)
TWINS.add(
    "metric-mismatch",
    "batches-of-5",
    "validation sums over tokens, in batches of another size",
    change(evaluate=in_fives),
)
TWINS.add(
    "metric-mismatch",
    "metrics-reset",
    "validation's metrics are an object of their own, reset at each",
    lambda recipe: change(evaluate=Running(reset=True))(recipe),
)
TWINS.add(
    "schedule-out-of-step",
    "plateau-of-a-falling-loss",
    "the rate is halved when the loss falls no more",
    waiting_for(lambda new, best: new < best),
)
TWINS.add(
    "cache-mismatch",
    "prompt-in-pieces",
    "the prompt is read into the cache two tokens at a time",
    change(generate=in_pieces),
)
TWINS.add(
    "generation-mismatch",
    "prompt-told-too",
    "decoding returns the prompt and its continuation",
    change(generate=prompt_and_continuation),
)
TWINS.add(
    "too-good-to-be-true",
    "words-four-times",
    "every word stands four times in a row, and the floor is a quarter",
    repeated(4),
)
TWINS.add(
    "no-better-than-unigram",
    "sentences-shuffled",
    "the sentences of each story are shuffled, the words within them are not",
    sentences_shuffled,
)
TWINS.add(
    "overfitting",
    "a-quarter-of-the-stories",
    "training knows a quarter of the stories",
    lambda recipe: read(recipe, train=list(recipe.train_texts[: len(recipe.train_texts) // 4])),
)
TWINS.add(
    "repetition-loop",
    "refrain",
    "every story tells its last eight words three times",
    retold(lambda stories: [story + 2 * story[-8:] for story in stories]),
    without_floor,
)
