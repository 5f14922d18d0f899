"""What validation, decoding and a forward pass in evaluation mode leave behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.bench.arrays import put
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.samples import minimal_batch, probe_batch
from mlxstories.ladder.bench.step.optimizers import parts
from mlxstories.ladder.bench.step.step_loss import is_random
from mlxstories.ladder.bench.subject_fault import SubjectFault
from mlxstories.trees import by_path

GENERATORS = ("numpy", "random", "mx.random")
_STEPS = 2
_PROMPT, _IDS = 6, 4


@dataclass(frozen=True)
class SideEffects:
    """Of one call.

    Attributes:
        weights: parameters that are others afterwards.
        moments: largest relative change of an array of the state of an optimiser that the subject hands out once; of
            its learning rate, which validation may lower, there is none.
        change: of the logits in training mode under one seed, by their largest difference over their spread.
        reseeded: generators that are in the same state afterwards whatever they were in before.
        random: whether the model in training mode was, with dropout say.
    """

    weights: list[str]
    moments: float
    change: float
    reseeded: list[str]
    random: bool


@measurement
def side_effects(bench: Bench) -> dict[str, SideEffects]:
    """By what was called: ``evaluate``, ``generate``, ``model(tokens) in evaluation mode``; left out where a model
    in training mode is not repeatable even so, or the call fails."""
    model, optimizer = bench.model(), bench.optimizer()
    batch = minimal_batch(bench)
    model.train()
    for call in range(_STEPS):
        bench.step(model, optimizer, probe_batch(bench, call))
    model.train()
    disturbed = is_random(bench, model)
    found = {}
    for name, call in _calls(bench, model, batch).items():
        try:
            one = _traces(bench, model, optimizer, batch, call, disturbed)
        except SubjectFault:
            continue
        if one is not None:
            found[name] = one
    return found


@dataclass(frozen=True)
class ToldLoss:
    """The loss that the step tells of one batch with the same weights: before a call, and next after it."""

    before: float
    after: float


@measurement
def told_losses(bench: Bench) -> dict[str, ToldLoss]:
    """By what was called, as `side_effects`; left out where the step does not tell the same twice before the call."""
    model, optimizer = bench.model(), bench.optimizer()
    batch, kept = probe_batch(bench, 0), by_path(model.parameters())
    found = {}

    def told() -> float:
        put(model, kept)
        model.train()
        bench.seed_all(bench.seed)
        return bench.step(model, optimizer, batch)

    for name, call in _calls(bench, model, minimal_batch(bench)).items():
        told()  # what an earlier call left behind is told here
        before, again = told(), told()
        try:
            with bench.calling("the call"):
                call()
        except SubjectFault:
            continue
        if before == again and np.isfinite(before):
            found[name] = ToldLoss(before, told())
    return found


def _calls(bench: Bench, model: nn.Module, batch: HostBatch) -> dict[str, Callable[[], object]]:
    subject = bench.subject
    prompt = [int(i) for i in np.maximum(batch.inputs[0, :_PROMPT], 0)]

    def forward():
        model.eval()
        bench.logits(model, np.maximum(batch.inputs[:1], 0))

    calls: dict[str, Callable[[], object]] = {"model(tokens) in evaluation mode": forward}
    if subject.evaluate is not None:
        calls["evaluate"] = lambda: subject.evaluate(model, [batch.user()])
    if subject.generate is not None:
        calls["generate"] = lambda: subject.generate(model, prompt, _IDS)
    return calls


def _traces(
    bench: Bench,
    model: nn.Module,
    optimizer: Optimizer,
    batch: HostBatch,
    call: Callable[[], object],
    disturbed: bool,
) -> SideEffects | None:
    before = _training_logits(bench, model, batch)
    if not np.array_equal(before, _training_logits(bench, model, batch)):
        return None
    weights, moments = by_path(model.parameters()), _state(optimizer)
    states = []
    for seed in (101, 102):
        bench.seed_all(seed)
        with bench.calling("the call"):
            call()
        states.append(_random_states())
    after, touched = by_path(model.parameters()), _state(optimizer)
    changed = [n for n, a in weights.items() if n not in after or not _equal(a, after[n])]
    shift = max((_shift(a, touched.get(n)) for n, a in moments.items()), default=0.0)
    apart = float(np.abs(_training_logits(bench, model, batch) - before).max()) / max(
        float(before.std()), 1e-30
    )
    alike = [n for n, one, other in zip(GENERATORS, *states, strict=True) if one == other]
    return SideEffects(changed, shift, apart, alike, disturbed)


def _state(optimizer: Optimizer) -> dict[str, mx.array]:
    """The arrays of all its parts but the learning rate, by number and path."""
    flat = {f"{i}.{n}": a for i, part in enumerate(parts(optimizer)) for n, a in by_path(part.state).items()}
    return {n: a for n, a in flat.items() if isinstance(a, mx.array) and not n.endswith("learning_rate")}


def _shift(before: mx.array, after: mx.array | None) -> float:
    """Change of an array relative to its norm; infinite where the array is gone."""
    if before is after:
        return 0.0
    if after is None or before.shape != after.shape:
        return float("inf")
    one, other = before.astype(mx.float32), after.astype(mx.float32)
    return float(mx.linalg.norm(other - one)) / max(float(mx.linalg.norm(one)), 1e-30)


def _equal(one: mx.array, other: mx.array) -> bool:
    return one is other or (one.shape == other.shape and bool(mx.array_equal(one, other, equal_nan=True)))


def _training_logits(bench: Bench, model: nn.Module, batch: HostBatch) -> np.ndarray:
    model.train()
    bench.seed_all(bench.seed)
    return np.array(bench.logits(model, np.maximum(batch.inputs, 0)))


def _random_states() -> tuple[bytes, tuple, bytes]:
    _, keys, place, *_ = np.random.get_state()
    return (
        keys.tobytes() + bytes(str(place), "ascii"),
        random.getstate(),
        np.array(mx.random.state[0]).tobytes(),
    )


@measurement
def drawn_with(bench: Bench) -> list[str]:
    """The global random generators that an epoch of training draws from, from its second batch on."""
    bench.seed_all(bench.seed)
    with bench.calling("train_batches"):
        batches = iter(bench.subject.train_batches(bench.seed))
        if next(batches, None) is None:
            return []
        before = _random_states()
        next(batches, None)
    return [n for n, one, other in zip(GENERATORS, before, _random_states(), strict=True) if one != other]
