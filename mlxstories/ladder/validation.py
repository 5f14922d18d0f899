"""The subject's own validation against ours, and the difference explained."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import ERROR, WARNING
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.objective import log_softmax
from mlxstories.ladder.examination import Examination

_CLOSE = 2e-3
_PADDED = ("padding", "padding, mean of batch means", "padding in the denominator", "padding taken as right")


class Oracle(nn.Module):
    """Answers each batch of tokens with the logits chosen for it, whatever the mode."""

    def __init__(self, answers: dict[bytes, np.ndarray]):
        super().__init__()
        self._answers = answers

    def __call__(self, tokens, *_, **__):
        return mx.array(self._answers[np.array(tokens).astype(np.int64).tobytes()])


def examine(exam: Examination, model: nn.Module | None) -> None:
    """Feed the subject's ``evaluate`` known logits, then watch it on a real model in training mode."""
    evaluate = exam.subject.evaluate
    if evaluate is None:
        exam.check("validation agrees with ours", None, "no evaluate given")
        return
    batches = _batches(exam)
    if len(batches) == 0:
        exam.check("validation agrees with ours", None, "no batches")
        return
    stubbed = _with_oracle(exam, batches)
    if stubbed is not None:
        _compare(exam, stubbed, batches)
    _on_model(exam, model or exam.noisy(9), batches, compare=stubbed is None)


def _batches(exam: Examination) -> list[HostBatch]:
    """Validation rows with padding of our own making, so that its treatment shows; rows are unequally long."""
    epoch = exam.val or exam.train
    rng = np.random.default_rng((exam.seed, 53))
    pads = any(
        (batch.mask == 0).any() for batch in epoch.batches
    )  # without padding, to ignore the mask is no fault
    made = []
    for index in range(3):
        source = epoch.batches[index % len(epoch.batches)]
        width = min(source.shape[1], max(8, 400_000 // (4 * exam.subject.vocab_size)))
        batch = source.rows(slice(0, min(4, source.shape[0]))).cut(width)
        mask = np.ones(batch.shape, np.float32)
        if pads:
            kept = rng.integers(max(2, width // (2 + index)), width + 1, batch.shape[0])
            mask = (np.arange(width) < kept[:, None]).astype(np.float32)
        inputs = rng.integers(0, exam.subject.vocab_size, batch.shape)
        targets = rng.integers(0, exam.subject.vocab_size, batch.shape)
        made.append(batch.with_(inputs=inputs, targets=targets, mask=mask))
    return made


def _with_oracle(exam: Examination, batches: list[HostBatch]):
    rng = np.random.default_rng((exam.seed, 59))
    answers: dict[bytes, np.ndarray] = {}
    for index, batch in enumerate(batches):
        shape = (*batch.shape, exam.subject.vocab_size)
        logits = rng.standard_normal(shape).astype(np.float32)
        # About half of the real cells right, nearly all of the padding, and batches unlike each other.
        right = rng.random(batch.shape) < np.where(batch.mask > 0, 0.3 + 0.2 * index, 0.9)
        boost = np.where(right, 12.0, 0.0).astype(np.float32)[..., None]
        # Some targets come second, so that a generous count shows.
        close = ~right & (rng.random(batch.shape) < 0.4)
        rival = (batch.targets + 1) % exam.subject.vocab_size
        np.put_along_axis(
            logits, rival[..., None], np.where(close, 14.0, 0.0).astype(np.float32)[..., None], -1
        )
        boost = boost + np.where(close, 12.0, 0.0).astype(np.float32)[..., None]
        place = batch.targets[..., None]
        np.put_along_axis(logits, place, np.take_along_axis(logits, place, -1) + boost, -1)
        answers[batch.inputs.tobytes()] = logits
    try:
        reported = exam.subject.evaluate(Oracle(answers), [batch.user() for batch in batches])
        reported = {key: float(value) for key, value in dict(reported).items()}
    except Exception:  # it needs more of the model than calling it
        return None
    return reported, [answers[batch.inputs.tobytes()] for batch in batches]


def _on_model(exam: Examination, model: nn.Module, batches: list[HostBatch], *, compare: bool) -> None:
    def evaluate(seed: int) -> dict[str, float]:
        model.train()
        exam.seed_all(seed)
        with exam.calling("evaluate"):
            answer = exam.subject.evaluate(model, [batch.user() for batch in batches])
            if not hasattr(answer, "keys"):
                raise exam.fault(
                    f"evaluate returned {type(answer).__name__}",
                    'return {"loss": ..., "accuracy": ...}',
                    "evaluate",
                )
            return {str(key): float(value) for key, value in dict(answer).items()}

    first, second = evaluate(1), evaluate(2)
    model.eval()
    logits = [np.array(exam.logits(model, batch.inputs)) for batch in batches]
    noisy = any(abs(first[k] - second.get(k, first[k])) > 1e-5 * max(1.0, abs(first[k])) for k in first)
    exam.check("validation is repeatable", not noisy)
    if noisy:
        own = _expected(logits, batches)["mean"][0]
        exam.found(
            "dropout-in-evaluation",
            ERROR,
            f"evaluating the same model twice gives {first.get('loss', 0):.4f} and {second.get('loss', 0):.4f} nats "
            f"({own:.4f} with dropout off): dropout stays on",
            fix="call model.eval() before validation and model.train() after it",
            where="evaluate",
            first=first,
            second=second,
            loss_without_dropout=own,
        )
    elif compare:
        _compare(exam, (first, logits), batches)


def _expected(logits: list[np.ndarray], batches: list[HostBatch]) -> dict[str, tuple[float, float, float]]:
    """(loss, smoothing term, accuracy) under each way of averaging."""
    nats, flat, hits, real = [], [], [], []
    for values, batch in zip(logits, batches, strict=True):
        logs = log_softmax(values, 1)
        nats.append(-np.take_along_axis(logs, batch.targets[..., None], -1)[..., 0])
        flat.append(-logs.mean(-1))
        hits.append((values.argmax(-1) == batch.targets).astype(np.float64))
        real.append(batch.mask > 0)

    def over(chosen) -> tuple[float, float, float]:
        return tuple(
            float(np.concatenate([a[c] for a, c in zip(x, chosen, strict=True)]).mean())
            for x in (nats, flat, hits)
        )

    everything = [np.ones_like(r) for r in real]
    by_batch = np.mean(
        [[a[r].mean() for a in (n, f, h)] for n, f, h, r in zip(nats, flat, hits, real, strict=True)], 0
    )
    padded = np.mean([[a.mean() for a in (n, f, h)] for n, f, h in zip(nats, flat, hits, strict=True)], 0)
    by_row = np.mean(
        [
            [a[i][r[i]].mean() for a in (n, f, h)]
            for n, f, h, r in zip(nats, flat, hits, real, strict=True)
            for i in range(len(r))
        ],
        0,
    )
    cells = sum(r.size for r in real)
    share = sum(r.sum() for r in real) / cells
    right = tuple(share * value for value in over(real))
    return {
        "mean": over(real),
        "mean of batch means": tuple(by_batch),
        "mean of row means": tuple(by_row),
        "padding": over(everything),
        "padding, mean of batch means": tuple(padded),
        "padding in the denominator": right,
        "padding taken as right": (right[0], right[1], right[2] + 1 - share),
    }


def _compare(exam: Examination, answer, batches: list[HostBatch]) -> None:
    reported, logits = answer
    expected = _expected(logits, batches)
    loss, _, accuracy = expected["mean"]
    ok = True
    if "loss" in reported:
        ok &= _loss(exam, reported["loss"], expected, logits, batches)
    if "accuracy" in reported:
        ok &= _accuracy(exam, reported["accuracy"], expected)
    exam.check(
        "validation agrees with ours", ok, f"loss {loss:.4f}, accuracy {accuracy:.2%} on our test batches"
    )


def _near(value: float, other: float) -> bool:
    return abs(value - other) <= _CLOSE * max(1.0, abs(other))


def _unlike_the_mean(
    value: float, expected, logits: list[np.ndarray], batches: list[HostBatch]
) -> str | None:
    """What a loss is that is not the mean over all real tokens, in words."""
    loss = expected["mean"][0]
    if _near(np.log(max(value, 1e-30)), loss):
        return "a perplexity"
    for factor, words in (
        (1 / np.log(2), "in bits"),
        (-1, "negated"),
        (len(batches), "summed over batches"),
    ):
        if _near(value, factor * loss) or _near(value, factor * expected["mean of batch means"][0]):
            return words
    for count in range(1, len(batches)):
        for part, words in ((slice(count), "first"), (slice(-count, None), "last")):
            some = _expected(logits[part], batches[part])
            if any(_near(value, some[name][0]) for name in ("mean", "mean of batch means")):
                return f"that of the {words} {count} of {len(batches)} batches alone"
    return None


def _loss(exam: Examination, value: float, expected, logits, batches: list[HostBatch]) -> bool:
    loss = expected["mean"][0]
    if _near(value, loss):
        return True
    evidence = {"reported": value, "recomputed": loss}
    for name in ("mean of batch means", "mean of row means"):
        if _near(value, expected[name][0]):
            exam.found(
                "metric-mismatch",
                WARNING,
                f"the validation loss is the {name}, which weighs tokens unequally: {value:.4f}, per token {loss:.4f}",
                fix="sum the nats of all real tokens and divide once by their number",
                where="evaluate",
                **evidence,
            )
            return True
    for name in _PADDED:
        if _near(value, expected[name][0]):
            exam.found(
                "padding-in-accuracy",
                ERROR,
                f"the validation loss counts padding: {value:.4f} instead of {loss:.4f} on our test batches",
                fix="weigh losses and hits by batch.mask",
                where="evaluate",
                **evidence,
            )
            return False
    words = _unlike_the_mean(value, expected, logits, batches)
    for name, (nats, flat, _) in expected.items() if words is None else ():
        smoothing = (value - nats) / (flat - nats) if abs(flat - nats) > 1e-6 else 0.0
        if 0.004 < smoothing < 0.6 and _round(smoothing):
            exam.found(
                "smoothed-validation-loss",
                ERROR,
                f"the validation loss contains label smoothing of {smoothing:.2g}: {value:.4f} where the plain loss "
                f"is {loss:.4f}",
                fix="validate with label_smoothing=0",
                where="evaluate",
                label_smoothing=smoothing,
                averaging=name,
                **evidence,
            )
            return False
    exam.found(
        "metric-mismatch",
        ERROR,
        f"the validation reports a loss of {value:.4f} where the mean over real tokens is {loss:.4f} nats"
        + (f": it is {words}" if words else ""),
        fix="sum -log p of all real tokens, in nats, and divide once by their number",
        where="evaluate",
        **evidence,
    )
    return False


def _round(smoothing: float) -> bool:
    """Smoothing is a round number; anything else is a coincidence."""
    return abs(smoothing - round(smoothing * 200) / 200) < 1e-4


def _accuracy(exam: Examination, value: float, expected) -> bool:
    accuracy = expected["mean"][2]
    if any(_near(value, expected[name][2]) for name in ("mean", "mean of batch means", "mean of row means")):
        return True
    padded = any(_near(value, expected[n][2]) for n in _PADDED)
    percent = _near(value / 100, accuracy)
    exam.found(
        "padding-in-accuracy" if padded else "metric-mismatch",
        WARNING if percent else ERROR,
        f"the validation reports an accuracy of {value:.4f} where {accuracy:.4f} of the real tokens are right"
        + (": padding is counted" if padded else ": it is in percent" if percent else ""),
        fix="count argmax == target where the mask is 1, divided by the number of such cells",
        where="evaluate",
        reported=value,
        recomputed=accuracy,
    )
    return False
