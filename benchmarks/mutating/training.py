"""A short training of a setup on its own batches, measured on rows that the original holds out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.arrays import put, token_losses
from mlxstories.ladder.bench.batches import HostBatch, read_batch
from mlxstories.ladder.bench.epoch import Epoch, raw_epoch
from mlxstories.ladder.bench.epochs import val_epoch
from mlxstories.ladder.bench.loss.convention import convention
from mlxstories.ladder.bench.scoring import scored
from mlxstories.ladder.exchange.material import plain_loss

FIRST = 8  # updates, after which a training that is the original's has its weights to the last bit
_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the updates, after which it is measured
# of the held-out loss, by share: nothing makes up for it any more
CERTAIN = {0.25: 0.3, 0.5: 0.15, 0.75: 0.1}
_VALIDATED = 300  # rows of validation on which figures are compared
_SEEN = 1e-3  # of the logits' spread, by which other tokens move what they must not


class AnotherSetup(Exception):
    """It is of another size, not a mistake in this one."""


@dataclass
class Reference:
    """What the original shows, and what mutants are held against.

    Attributes:
        shapes: of the first batch and of all weights, and the number of tokens.
        held: inputs, targets and mask of held-out rows.
        val: the same of validation, or None.
        first: weights after `FIRST` updates.
        weights: after the last one.
        digest: of all batches.
        noise: by which share of the held-out loss another seed ends elsewhere.
        seconds: of the CPU, that this takes.
        whole: whether a training that begins as the original's is gone on with, too, and validation is run within it.
    """

    held: HostBatch
    val: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    shapes: dict[str, Any] = field(default_factory=dict)
    first: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    digest: str = ""
    measured: Measured | None = None
    noise: float = 0.0
    seconds: float = 5.0
    whole: bool = False


@dataclass
class Measured:
    """A short training.

    Attributes:
        curve: updates to held-out loss in nats per token, by our own measure.
        unchanged: whether batches and weights were the original's, so that it was not gone on with.
        broke: why training ended, or None.
        figures: by name, what the setup reports over our own measure of the same.
        foresight: whether logits move with later tokens, or with other rows.
        greedy: the share of its own continuation that the model itself would choose, or None.
    """

    curve: dict[int, float]
    unchanged: bool = False
    broke: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    foresight: bool = False
    greedy: float | None = None

    @property
    def loss(self) -> float:
        return list(self.curve.values())[-1] if self.broke is None else float("inf")


def measure(bench: Bench, updates: int, kept: Reference) -> Measured:
    """Train, and look at what the trained setup reports; ends early where it is clear.

    Without a measured original in the reference this is the original, and its weights are kept there.

    Raises:
        AnotherSetup: sizes are not the original's.
        SubjectFault: it does not run.
    """
    with bench.protected():
        model, optimizer = bench.model(bench.seed), bench.optimizer()
        batches = _batches(bench, updates)
        _compare_sizes(bench, model, batches, kept)
        found, marks = Measured({}), sorted({min(FIRST, updates), *(round(updates * s) for s in _SHARES)})
        for begin, end in itertools.pairwise([0, *marks]):
            bench.seed_all(bench.seed + 1 + begin)
            model.train()
            for batch in batches[begin:end]:
                bench.step(model, optimizer, batch)
            if begin == 0 and _same_so_far(bench, model, batches, kept) and not kept.whole:
                found = Measured(dict(kept.measured.curve), unchanged=True)
                _restore(model, kept.weights)
                break
            found.curve[end] = scored(bench, model, kept.held).loss
            if kept.whole:
                _reported(bench, model, kept)
            if not np.isfinite(found.loss):
                found.broke = "the held-out loss is not finite"
            if found.broke or _hopeless(found.curve, updates, kept):
                break
        if kept.measured is None:
            kept.weights = _weights(model)
        if found.broke is None:
            found.figures = _figures(bench, model, optimizer, batches, kept)
            found.foresight = _foresight(bench, model, kept.held)
            found.greedy = _greedy(bench, model, kept.held)
        return found


def _batches(bench: Bench, updates: int) -> list[HostBatch]:
    """As many batches as updates, in the order of training; without validation not the last tenth of an epoch."""

    def epoch(seed: int) -> Iterator[HostBatch]:
        bench.seed_all(seed)
        return map(read_batch, bench.subject.train_batches(seed))

    with bench.calling("train_batches(seed)"):
        found = list(itertools.islice(epoch(bench.seed), updates))
        if bench.subject.val_batches is None and len(found) < updates:
            found = found[: max(1, len(found) - max(1, len(found) // 10))]
        for seed in range(bench.seed + 1, bench.seed + updates):
            if len(found) < updates and found and bench.subject.val_batches is not None:
                found += itertools.islice(epoch(seed), updates - len(found))
    if not found:
        raise bench.fault("train_batches(seed) yields no batch", "yield at least one batch an epoch")
    bench.taken[raw_epoch] = Epoch(found, False)  # all that the convention of targets is read from
    found = [batch.by(convention(bench)) for batch in found]
    return [found[i % len(found)] for i in range(updates)]


def _compare_sizes(bench: Bench, model: nn.Module, batches: list[HostBatch], kept: Reference) -> None:
    shapes = {name: a.shape for name, a in tree_flatten(model.parameters())}
    shapes |= {"a batch": batches[0].shape, "tokens": bench.subject.vocab_size}
    if kept.measured is None:
        kept.shapes, kept.digest = shapes, _digest(batches)
    elif shapes != kept.shapes:
        differing = {n for n in shapes | kept.shapes if shapes.get(n) != kept.shapes.get(n)}
        raise AnotherSetup(f"of another size: {min(differing)}")


def _digest(batches: list[HostBatch]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for array in (batch.inputs, batch.targets, batch.mask):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {n: np.array(a.astype(mx.float32)) for n, a in tree_flatten(model.parameters())}


def _restore(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
    dtypes = {name: a.dtype for name, a in tree_flatten(model.parameters())}
    put(model, {name: mx.array(a).astype(dtypes[name]) for name, a in weights.items()})


def _same_so_far(bench: Bench, model: nn.Module, batches: list[HostBatch], kept: Reference) -> bool:
    weights = _weights(model)
    if kept.measured is None:
        kept.first = weights
        return False
    same = bench.seed == 0 and all(np.array_equal(a, weights[name]) for name, a in kept.first.items())
    return same and _digest(batches) == kept.digest


def _hopeless(curve: dict[int, float], updates: int, kept: Reference) -> bool:
    at = max(curve)
    limit = next((behind for share, behind in CERTAIN.items() if round(updates * share) == at), None)
    return (
        limit is not None and kept.measured is not None and curve[at] > (1 + limit) * kept.measured.curve[at]
    )


def _figures(bench: Bench, model: nn.Module, optimizer, batches: list[HostBatch], kept: Reference) -> dict:
    """What evaluation and the training step report, over our own measure."""
    found = {}
    if (said := _reported(bench, model, kept)) is not None:
        ours = _validated(bench, model, kept.val)
        found = {f"reported {key}": said[key] / ours[key] for key in ours if key in said}
    ratios = []
    model.train()
    for batch in batches[:3]:
        bench.seed_all(2)
        with bench.calling("loss"):
            ours = float(plain_loss(model, batch))
        bench.seed_all(2)
        ratios.append(bench.step(model, optimizer, batch) / max(ours, 1e-9))
    return found | {"training loss": float(np.mean(ratios))}


def _reported(bench: Bench, model: nn.Module, kept: Reference) -> dict[str, float] | None:
    """What the setup's own evaluation says of the model; None where it has none."""
    val = val_epoch(bench)  # a validation that cannot be read does not run
    if bench.subject.evaluate is None or kept.val is None or val is None:
        return None
    count = max(1, -(-_VALIDATED // val.batches[0].shape[0]))
    bench.seed_all(1)
    with bench.calling("evaluate"):
        said = dict(bench.subject.evaluate(model, [batch.user() for batch in val.batches[:count]]))
        return {key: float(value) for key, value in said.items()}


def _validated(bench: Bench, model: nn.Module, arrays: tuple) -> dict[str, float]:
    inputs, targets, mask = arrays
    training = model.training
    model.eval()
    sums = np.zeros(3)
    for start in range(0, len(inputs), 32):
        part = slice(start, start + 32)
        logits = bench.logits(model, np.maximum(inputs[part], 0))
        wanted = (mask[part] > 0) & (targets[part] >= 0)
        goal = np.where(wanted, targets[part], 0).astype(np.int32)
        losses, _ = token_losses(logits, mx.array(goal))
        hits = np.array(logits.argmax(-1)) == goal
        sums += [(np.array(losses) * wanted).sum(), (hits & wanted).sum(), wanted.sum()]
    model.train(training)
    return {"loss": sums[0] / sums[2], "accuracy": max(sums[1], 1) / sums[2]}


def validated_rows(epoch: Epoch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and mask of the batches that `measure` gives to the setup's evaluation."""
    count = max(1, -(-_VALIDATED // epoch.batches[0].shape[0]))
    batches = [b for b in epoch.batches[:count] if b.shape[1] == epoch.batches[0].shape[1]]
    return tuple(np.concatenate([getattr(b, n) for b in batches]) for n in ("inputs", "targets", "mask"))


def _foresight(bench: Bench, model: nn.Module, held: HostBatch) -> bool:
    """Whether the first half of the first row is told differently once all later tokens and rows are others."""
    inputs = np.maximum(held.inputs[:4], 0)
    other = np.random.default_rng(3).permutation(inputs.ravel()).reshape(inputs.shape)
    half = max(1, inputs.shape[1] // 2)
    other[0, :half] = inputs[0, :half]
    model.eval()
    one, two = (np.array(bench.logits(model, ids))[0, :half] for ids in (inputs, other))
    return bool(np.abs(one - two).max() > _SEEN * one.std())


def _greedy(bench: Bench, model: nn.Module, held: HostBatch, count: int = 8) -> float | None:
    """How many of the tokens that the setup generates are the model's first choice."""
    if bench.subject.generate is None:
        return None
    prompt = [int(token) for token in np.maximum(held.inputs[0, :8], 0)]
    bench.seed_all(4)
    with bench.calling("generate"):
        said = [int(token) for token in bench.subject.generate(model, prompt, count)]
    model.eval()
    if len(said) != count:
        return 0.0
    try:
        logits = np.array(bench.logits(model, np.array([prompt + said])))[0, len(prompt) - 1 : -1]
    except SubjectFault:  # what it says is no token
        return 0.0
    return float(np.mean(logits.max(-1) - logits[np.arange(len(said)), said] < 1e-3))
