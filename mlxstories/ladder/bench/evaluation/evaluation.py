"""What the subject's own validation reports of logits that we know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench.arrays import first_of, put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch
from mlxstories.ladder.bench.evaluation.averages import MEAN, Average, averages
from mlxstories.ladder.bench.loss.objective import log_softmax
from mlxstories.ladder.bench.step.step_loss import is_random
from mlxstories.ladder.bench.training.trained import trained_model
from mlxstories.ladder.patches import rerouted, tokens_of, with_tokens
from mlxstories.trees import by_path

_BATCHES = 3
_OWN = 24  # of validation's own batches
_CELLS = 400_000  # logits of a batch
_SUM = 1e-3  # nats by which probabilities miss 1 at most
_CLOCK = re.compile(r"time|second|elapsed|duration|throughput|speed|per_sec|/s$|memory", re.I)


class Oracle(nn.Module):
    """Answers each batch of tokens with the logits chosen for it, whatever the mode."""

    def __init__(self, answers: dict[bytes, np.ndarray]):
        super().__init__()
        self._answers = answers
        self.asked = False

    def __call__(self, *args, **kwargs):
        self.asked = True
        return mx.array(self._answers[_key(tokens_of(args, kwargs))])


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
def evaluation_batches(bench: Bench) -> list[HostBatch]:
    """Batches of random tokens in the form of validation's, unequally long where padding is used at all: without
    it, to ignore the mask is no fault."""
    epoch = val_epoch(bench) or train_epoch(bench)
    rng = np.random.default_rng((bench.seed, 53))
    vocab, made = bench.subject.vocab_size, []
    for index in range(_BATCHES):
        source = epoch.batches[index % len(epoch.batches)]
        width = min(source.shape[1], max(8, _CELLS // (4 * vocab)))
        batch = source.rows(slice(0, min(4, source.shape[0]))).cut(width)
        mask = np.ones(batch.shape, np.float32)
        if epoch.padded:
            kept = rng.integers(max(min(2, width), width // (2 + index)), width + 1, batch.shape[0])
            mask = (np.arange(width) < kept[:, None]).astype(np.float32)
        inputs, targets = rng.integers(0, vocab, batch.shape), rng.integers(0, vocab, batch.shape)
        made.append(batch.with_(inputs=inputs, targets=targets, mask=mask))
    return made


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
        values = _figures(dict(values))
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
    with _heard(model) as said:
        first = _evaluate(bench, model, batches, 1)
    second = _evaluate(bench, model, batches, 2)
    return Twice(Reported(first, _logits_behind(bench, model, batches, said), batches), second)


@measurement
def around_another(bench: Bench) -> tuple[dict[str, float], dict[str, float]] | None:
    """Two evaluations of one model that draws nothing, with another model's between them, under one random state: if
    they differ, ``evaluate`` keeps something from call to call. None where the model is random in training mode, or the
    second evaluation differs anyway."""
    model, batches = bench.noisy(9), evaluation_batches(bench)
    model.train()
    if is_random(bench, model):
        return None
    with _heard(model) as said:
        first = _evaluate(bench, model, batches, 1)
    _evaluate(bench, bench.noisy(10), batches, 1)
    with _heard(model) as again:
        last = _evaluate(bench, model, batches, 1)
    # Averages of weights that validation keeps, and asks, are meant.
    same = said.keys() == again.keys() and all(np.array_equal(told, again[key]) for key, told in said.items())
    return (first, last) if same else None


def _logits_behind(
    bench: Bench, model: nn.Module, batches: list[HostBatch], said: dict[bytes, np.ndarray]
) -> list[np.ndarray]:
    """What the model said to ``evaluate``, which may have put other weights in for it; else what it says to us."""
    model.eval()
    return [
        np.array(bench.logits(model, batch.inputs))
        if (told := said.get(_key(batch.inputs))) is None
        else told
        for batch in batches
    ]


@dataclass(frozen=True)
class Swapped:
    """An untrained model while ``evaluate`` asks it, against the same model asked plainly.

    Attributes:
        names: trainable parameters that were others then; averages of weights replace all of them or none.
        count: of the trainable parameters.
        change: median change of a real place's logits, in units of their spread.
    """

    names: list[str]
    count: int
    change: float


@measurement
def swapped(bench: Bench) -> Swapped | None:
    """What ``evaluate`` puts in for an untrained model's weights; None where it does not hand its batches to the model
    as they are."""
    model, batches, changes = bench.model(), evaluation_batches(bench), []
    own, names = by_path(model.trainable_parameters()), set()

    def look():
        during = by_path(model.parameters())
        names.update(n for n, a in own.items() if n not in during or not mx.array_equal(a, during[n]))

    with _heard(model, look) as said:
        _evaluate(bench, model, batches, 1)
    model.eval()
    for batch in batches:
        if (told := said.get(_key(batch.inputs))) is None or told.shape[:2] != batch.shape:
            return None
        plain = np.array(bench.logits(model, batch.inputs))
        size = min(plain.shape[-1], told.shape[-1])
        change = np.abs(told[..., :size] - plain[..., :size]).max(-1) / (float(plain.std()) or 1.0)
        changes.append(change[batch.mask > 0])
    return Swapped(sorted(names), len(own), float(np.median(np.concatenate(changes)))) if changes else None


@dataclass(frozen=True)
class Learned:
    """One batch, judged with its own targets and with others.

    Attributes:
        change: median change of a real place's last logits, in units of their spread.
        reported: the loss that ``evaluate`` tells with its own.
        last: the loss of those logits.
    """

    change: float
    reported: float
    last: float


@measurement
def learned(bench: Bench) -> Learned | None:
    """Whether what the model says to ``evaluate`` of a batch hangs on the targets that it is then scored on; None
    where that cannot be read, or where no loss is told."""
    model, batch = bench.noisy(9), evaluation_batches(bench)[0]
    kept = {name: array + 0 for name, array in by_path(model.parameters()).items()}
    others = batch.with_(targets=(batch.targets + 1) % bench.subject.vocab_size)
    answers, losses = [], []
    for given in (batch, others):
        put(model, kept)
        with _heard(model) as said:
            losses.append(_evaluate(bench, model, [given], 1).get("loss"))
        answers.append(said.get(_key(batch.inputs)))
    put(model, kept)
    one, other = answers
    if one is None or other is None or one.shape != other.shape or losses[0] is None:
        return None
    change = (np.abs(one - other).max(-1) / (float(one.std()) or 1.0))[batch.mask > 0]
    return Learned(float(np.median(change)), losses[0], averages([one], [batch])[MEAN].loss)


@contextmanager
def _heard(model: nn.Module, look: Callable[[], None] = lambda: None) -> Iterator[dict[bytes, np.ndarray]]:
    """Collects the logits that the model returns by the tokens that it is called with, and has a look around at each
    call; nothing inside of mx.compile."""
    said: dict[bytes, np.ndarray] = {}

    def heard(own, tokens, *args, **kwargs):
        out = own(tokens, *args, **kwargs)
        logits = first_of(out)
        with suppress(Exception):
            if logits.ndim == 3:  # not in one row, as a model may that takes its loss itself
                said[_key(tokens)] = np.array(logits.astype(mx.float32))
            look()
        return out

    with rerouted(model, with_tokens(heard)):
        yield said


def _key(tokens) -> bytes:
    return np.array(tokens).astype(np.int64).tobytes()


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


@measurement
def text_sizes(bench: Bench) -> tuple[float, float, float] | None:
    """UTF-8 bytes, characters, and the spaces among these, that a real target of those batches stands for; None
    without a tokenizer."""
    own, tokenizer = own_figures(bench), bench.subject.tokenizer
    if own is None or tokenizer is None:
        return None
    tokens = sum(float((batch.mask > 0).sum()) for batch in own.batches)
    rows = [row[m > 0] for batch in own.batches for row, m in zip(batch.targets, batch.mask, strict=True)]
    with bench.calling("the tokenizer"):
        texts = [str(tokenizer.decode([int(i) for i in row])) for row in rows]
    counts = (sum(map(len, map(str.encode, texts))), sum(map(len, texts)), sum(t.count(" ") for t in texts))
    return tuple(count / max(tokens, 1) for count in counts)


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
    with _heard(model) as said:
        values = _evaluate(bench, model, batches, 1)
    mean = averages(_logits_behind(bench, model, batches, said), batches)[MEAN].loss
    return Own(values, mean, batches)


def _evaluate(bench: Bench, model: nn.Module, batches: list[HostBatch], seed: int) -> dict[str, float]:
    model.train()
    bench.seed_all(seed)
    with bench.calling("evaluate"):
        answer = bench.subject.evaluate(model, [batch.user() for batch in batches])
        if not hasattr(answer, "keys"):
            raise bench.fault(
                f"evaluate returned {type(answer).__name__}",
                'return {"loss": ..., "accuracy": ...}',
                "evaluate",
                part="evaluation",
            )
        figures = _figures(dict(answer))
        for name in ("loss", "accuracy"):
            if name in answer and name not in figures:
                raise bench.fault(
                    f"evaluate returned {type(answer[name]).__name__} as {name}, not a number",
                    'return {"loss": ..., "accuracy": ...}',
                    "evaluate",
                    part="evaluation",
                )
        return figures


def _figures(answer: dict[Any, Any]) -> dict[str, float]:
    """The numbers in what ``evaluate`` returns, without those of a clock, which are others each time; samples and
    tables may stand beside them."""
    figures = {}
    for name, value in answer.items():
        if not _CLOCK.search(str(name)):
            with suppress(TypeError, ValueError):
                figures[str(name)] = float(value)
    return figures
