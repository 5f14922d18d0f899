"""What the subject's own validation reports of logits that we know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import val_epoch
from mlxstories.ladder.bench.evaluation.averages import MEAN, Average, averages
from mlxstories.ladder.bench.evaluation.calls import (
    evaluate,
    evaluation_batches,
    figures_in,
    heard,
    key_of,
    logits_behind,
)
from mlxstories.ladder.bench.loss.objective import log_softmax
from mlxstories.ladder.bench.step.step_loss import is_random
from mlxstories.ladder.bench.training.trained import trained_model
from mlxstories.ladder.patches import tokens_of

_OWN = 24  # of validation's own batches
_SUM = 1e-3  # nats by which probabilities miss 1 at most


class Oracle(nn.Module):
    """Answers each batch of tokens with the logits chosen for it, whatever the mode."""

    def __init__(self, answers: dict[bytes, np.ndarray]):
        super().__init__()
        self._answers = answers
        self.asked = False

    def __call__(self, *args, **kwargs):
        self.asked = True
        return mx.array(self._answers[key_of(tokens_of(args, kwargs))])


@dataclass(frozen=True)
class Reported:
    """What ``evaluate`` said, and the logits and batches that it was given."""

    values: dict[str, float]
    logits: list[np.ndarray]
    batches: list[HostBatch]

    @property
    def averages(self) -> dict[str, Average]:
        return averages(self.logits, self.batches)


@dataclass(frozen=True)
class Twice:
    """Two evaluations of one model in training mode, under different random states."""

    first: Reported
    second: dict[str, float]

    @property
    def difference(self) -> float:
        """The largest, relative to the value where that is above 1."""
        return apart(self.first.values, self.second)


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference of two reports, relative to the value where that is above 1."""
    return max((abs(v - other.get(k, v)) / max(1.0, abs(v)) for k, v in one.items()), default=0.0)


@measurement
def oracle_reported(bench: Bench) -> Reported | None:
    """``evaluate`` of known logits, or of their logarithms of probabilities where the model tells such; None where it
    needs more of the model than calling it, or calls another."""
    rng = np.random.default_rng((bench.seed, 59))
    batches = evaluation_batches(bench)
    answers = {batch.inputs.tobytes(): _logits(batch, i, rng, bench) for i, batch in enumerate(batches)}
    try:
        if _tells_logarithms(bench, batches[0]):
            answers = {key: log_softmax(logits, 1).astype(np.float32) for key, logits in answers.items()}
        oracle = Oracle(answers)
        values = bench.subject.evaluate(oracle, [batch.user() for batch in batches])
        values = figures_in(dict(values))
    except Exception:
        return None
    if not oracle.asked:
        return None
    return Reported(values, [answers[batch.inputs.tobytes()] for batch in batches], batches)


def _tells_logarithms(bench: Bench, batch: HostBatch) -> bool:
    """Whether what the model returns are logarithms of probabilities that add up to 1."""
    model = bench.noisy(9)
    model.eval()
    return mx.abs(mx.logsumexp(bench.logits(model, batch.inputs), axis=-1)).max().item() < _SUM


def _logits(batch: HostBatch, index: int, rng: np.random.Generator, bench: Bench) -> np.ndarray:
    vocab = bench.subject.vocab_size
    logits = rng.standard_normal((*batch.shape, vocab)).astype(np.float32)
    # About a third of the real cells right, so that misses counted as hits show, nearly all of the padding, and
    # batches unlike each other.
    right = rng.random(batch.shape) < np.where(batch.mask > 0, 0.15 + 0.2 * index, 0.9)
    boost = np.where(right, 12.0, 0.0).astype(np.float32)[..., None]
    # Some targets come second, so that a generous count shows.
    close = ~right & (rng.random(batch.shape) < 0.4)
    rival = np.where(close, 14.0, 0.0).astype(np.float32)[..., None]
    np.put_along_axis(logits, ((batch.targets + 1) % vocab)[..., None], rival, -1)
    boost = boost + np.where(close, 12.0, 0.0).astype(np.float32)[..., None]
    place = batch.targets[..., None]
    np.put_along_axis(logits, place, np.take_along_axis(logits, place, -1) + boost, -1)
    return logits


@measurement
def evaluated_twice(bench: Bench) -> Twice:
    """``evaluate`` of a real model, trained where there is one."""
    model, batches = trained_model(bench) or bench.noisy(9), evaluation_batches(bench)
    with heard(model) as said:
        first = evaluate(bench, model, batches, 1)
    second = evaluate(bench, model, batches, 2)
    return Twice(Reported(first, logits_behind(bench, model, batches, said), batches), second)


@measurement
def around_another(bench: Bench) -> tuple[dict[str, float], dict[str, float]] | None:
    """Two evaluations of one model that draws nothing, with another model's between them, under one random state: if
    they differ, ``evaluate`` keeps something from call to call. None where the model is random in training mode, or the
    second evaluation differs anyway."""
    model, batches = bench.noisy(9), evaluation_batches(bench)
    model.train()
    if is_random(bench, model):
        return None
    with heard(model) as said:
        first = evaluate(bench, model, batches, 1)
    evaluate(bench, bench.noisy(10), batches, 1)
    with heard(model) as again:
        last = evaluate(bench, model, batches, 1)
    # Averages of weights that validation keeps, and asks, are meant.
    same = said.keys() == again.keys() and all(np.array_equal(told, again[key]) for key, told in said.items())
    return (first, last) if same else None


@dataclass(frozen=True)
class Own:
    """What ``evaluate`` reports of the subject's own validation batches.

    Attributes:
        values: by name.
        mean: the loss over their tokens, in nats.
        batches: up to 24, spread over all in which something counts.
    """

    values: dict[str, float]
    mean: float
    batches: list[HostBatch]


class TextSizes(NamedTuple):
    """UTF-8 bytes, characters, and the spaces among these, that a real target stands for."""

    byte: float
    character: float
    space: float


@measurement
def text_sizes(bench: Bench) -> TextSizes | None:
    """What the targets of the subject's own validation batches stand for; None without a tokenizer."""
    own, tokenizer = own_figures(bench), bench.subject.tokenizer
    if own is None or tokenizer is None:
        return None
    tokens = sum(float((batch.mask > 0).sum()) for batch in own.batches)
    rows = [row[m > 0] for batch in own.batches for row, m in zip(batch.targets, batch.mask, strict=True)]
    with bench.calling("the tokenizer"):
        texts = [str(tokenizer.decode([int(i) for i in row])) for row in rows]
    counts = (sum(map(len, map(str.encode, texts))), sum(map(len, texts)), sum(t.count(" ") for t in texts))
    return TextSizes(*(count / max(tokens, 1) for count in counts))


@measurement
def own_figures(bench: Bench) -> Own | None:
    """Let ``evaluate`` judge a real model by its own batches; None where there are none."""
    return figures_of(bench, trained_model(bench) or bench.noisy(9))


def figures_of(bench: Bench, model: nn.Module) -> Own | None:
    """Let ``evaluate`` judge this model on its own batches; None where nothing counts in any of them."""
    epoch = val_epoch(bench)
    counting = [batch for batch in epoch.batches if (batch.mask > 0).any()] if epoch else []
    if not counting:
        return None
    spread = np.unique(np.linspace(0, len(counting) - 1, _OWN).astype(int))
    batches = [counting[i] for i in spread]
    with heard(model) as said:
        values = evaluate(bench, model, batches, 1)
    mean = averages(logits_behind(bench, model, batches, said), batches)[MEAN].loss
    return Own(values, mean, batches)
