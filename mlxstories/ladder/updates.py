"""What the subject's own training step does to the parameters, watched over a few calls."""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Adam, Optimizer
from mlx.utils import tree_flatten

from mlxstories.findings import ERROR, WARNING
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.objective import fit
from mlxstories.ladder.bench.optimizers import intercepted, parts, read_rate
from mlxstories.ladder.checks.loss_formula import judge_objective
from mlxstories.ladder.examination import Examination, masked_mean, put

_CALLS = 6
_MOST_CALLS = 24  # for steps that update only every so many calls
_OVERSTEP = 10.0  # times the learning rate: betas 0.9 and 0.999 reach 6.6
_DECAY_ERROR, _DECAY_WARNING = 3e-3, 1e-3  # share of the weights removed at every step


@dataclass
class Watched:
    """A few calls of the step on fresh batches.

    Attributes:
        moved: largest absolute change of each parameter over all calls.
        cosines: of each update with the downhill direction of our own loss.
        decays: share of the weights that each update removed.
        spreads: coefficient of variation of the update's entries, over matrices.
        ratios: norm of each parameter's updates over its own norm, one entry an update.
        losses: returned by the step; ours: recomputed before it.
        updates: calls that changed anything.
    """

    moved: dict[str, float] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)
    decays: list[float] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    rates: list[float | None] = field(default_factory=list)
    updates: int = 0
    calls: int = 0
    gradient: dict[str, float] = field(default_factory=dict)


def examine(exam: Examination) -> None:
    """Judge the step itself: does it move every parameter, downhill, with its state kept?"""
    model, optimizer = exam.model(), exam.optimizer()
    watched = watch(exam, model, optimizer)
    exam.facts["watched"] = watched
    if watched.ratios:
        exam.rung.figures["updates"] = watched.ratios
    if watched.calls == 0:
        exam.check("a step's update is finite", False)
        exam.found(
            "not-finite",
            ERROR,
            f"the very first training step makes the weights not finite (it returned a loss of {watched.losses[0]:g})",
            fix="look for a division by 0, a log of 0, or a mean over nothing in the loss or the step",
            where="train_step" if exam.subject.train_step else "loss",
            loss=watched.losses[0],
        )
        return
    _movement(exam, model, watched, optimizer)
    if exam.has("no-update"):
        return
    _direction(exam, watched)
    _state(exam, optimizer, watched)
    _decay(exam, watched)
    if exam.subject.train_step is not None and not exam.has(
        "loss-sign", "double-softmax", "targets-mismatched"
    ):
        _returned_loss(exam)
    exam.facts["clip"] = clipping(exam)


def watch(exam: Examination, model: nn.Module, optimizer: Optimizer) -> Watched:
    """Call the step on a few different batches."""
    watched = Watched()
    trainable = [n for n, _ in tree_flatten(model.trainable_parameters())]
    model.train()
    exam.seed_all(exam.seed + 3)
    for call in range(_MOST_CALLS):
        batch = exam.probe_batch(call)
        before = dict(tree_flatten(model.parameters()))
        gradient = exam.gradients(model, batch) if call < 4 else None
        watched.losses.append(exam.step(model, optimizer, batch))
        watched.rates.append(read_rate(optimizer))
        after = dict(tree_flatten(model.parameters()))
        change = {
            n: after[n].astype(mx.float32) - before[n].astype(mx.float32) for n in trainable if n in after
        }
        largest = {n: mx.abs(d).max() for n, d in change.items() if d.size}
        mx.eval(largest)
        moved = {n: float(v) for n, v in largest.items()}
        if not all(np.isfinite(list(moved.values()))):
            break
        watched.calls += 1
        for name, value in moved.items():
            watched.moved[name] = max(watched.moved.get(name, 0.0), value)
        if any(moved.values()):
            watched.updates += 1
            matrices = [n for n in change if change[n].ndim >= 2 and moved[n] > 0]
            watched.decays.append(_decay_of(before, change, matrices))
            watched.spreads.append(_spread_of(change, matrices))
            for name, ratio in _ratios(before, change).items():
                watched.ratios.setdefault(name, []).append(ratio)
            if gradient is not None:
                watched.cosines.append(_cosine(change, gradient))
        for name, value in (gradient or {}).items():
            watched.gradient[name] = max(watched.gradient.get(name, 0.0), float(mx.abs(value).max()))
        if call + 1 >= _CALLS and watched.updates >= min(4, call + 1):
            break
    return watched


def _decay_of(before, change, names) -> float:
    # Random weights are as good as orthogonal to their gradients, so the shrinking part is the decay.
    shrink = sum((change[n] * before[n].astype(mx.float32)).sum() for n in names) if names else 0.0
    norm = sum(before[n].astype(mx.float32).square().sum() for n in names) if names else 1.0
    return -float(shrink / mx.maximum(mx.array(norm), 1e-12))


def _ratios(before, change) -> dict[str, float]:
    ratios = {n: mx.linalg.norm(d) / mx.linalg.norm(before[n].astype(mx.float32)) for n, d in change.items()}
    mx.eval(ratios)
    # Parameters that start at 0 have no ratio.
    return {name: float(ratio) for name, ratio in ratios.items() if np.isfinite(float(ratio))}


def _spread_of(change, names) -> float:
    worst = []
    for name in names:
        size = mx.abs(change[name])
        alive = size > 0
        count = mx.maximum(alive.sum(), 1)
        mean = size.sum() / count
        variance = (mx.where(alive, size - mean, 0.0).square()).sum() / count
        worst.append(float(mx.sqrt(variance) / mx.maximum(mean, 1e-30)))
    return float(np.median(worst)) if worst else 1.0


def _cosine(change, gradient) -> float:
    names = [n for n in gradient if n in change]
    dot = sum((change[n] * gradient[n].astype(mx.float32)).sum() for n in names)
    sizes = [sum(x[n].astype(mx.float32).square().sum() for n in names) for x in (change, gradient)]
    return -float(dot / mx.maximum(mx.sqrt(sizes[0]) * mx.sqrt(sizes[1]), 1e-30))


def _movement(exam: Examination, model: nn.Module, watched: Watched, optimizer: Optimizer) -> None:
    arrays = dict(tree_flatten(model.trainable_parameters()))
    moved = [n for n in watched.moved if watched.moved[n] > 0]
    peak = exam.schedule.peak
    if not moved and watched.calls:
        exam.check("a step moves the parameters", False)
        tiny = 0 < peak < 1e-7
        exam.found(
            "learning-rate-too-small" if tiny else "no-update",
            ERROR,
            f"{watched.calls} training steps changed no parameter"
            + (f": the learning rate is {peak:g}" if exam.schedule.rates and peak < 1e-7 else ""),
            fix="raise the learning rate to about 1e-3"
            if exam.schedule.rates and peak < 1e-7
            else "call optimizer.update(model, gradients) in the step, and compile it with inputs and outputs = "
            "[model.state, optimizer.state]",
            where="optimizer" if exam.schedule.rates and peak < 1e-7 else "train_step",
            calls=watched.calls,
            learning_rate=peak,
        )
        return
    reach = max(watched.moved.values(), default=0.0)
    pace = np.median(
        [watched.moved[n] / g for n, g in watched.gradient.items() if n in moved and g > 0] or [0.0]
    )
    still = [
        n
        for n, a in arrays.items()
        if watched.moved.get(n, 0.0) == 0
        and a.size
        and watched.gradient.get(n, 0.0) > 1e-9
        and a.dtype == mx.float32
        # Moves as large as its gradient promises, or as its neighbours make, would not drown in rounding.
        and min(reach, pace * watched.gradient[n]) > 1e-6 * max(1e-6, float(mx.abs(a).max()))
    ]
    share = sum(arrays[n].size for n in still) / max(1, sum(a.size for a in arrays.values()))
    exam.check("a step moves every parameter", not still, f"{len(moved)} of {len(arrays)}")
    if still:
        exam.found(
            "frozen-parameters",
            ERROR,
            f"{len(still)} trainable parameters, {share:.1%} of the weights, have a gradient but the step never moves "
            f"them: {', '.join(still[:3])}" + (" ..." if len(still) > 3 else ""),
            fix="hand their gradients to the optimiser and its result to model.update",
            where=still[0],
            frozen=len(still),
            share_of_weights=share,
        )


def _direction(exam: Examination, watched: Watched) -> None:
    if not watched.cosines:
        exam.check("a step goes downhill", None, "no update among the first calls")
        return
    cosine = float(np.median(watched.cosines))
    uphill = cosine < -0.05 and max(watched.cosines) < 0
    exam.check("a step goes downhill", not uphill, f"cosine {cosine:.2f}")
    if uphill:
        exam.found(
            "loss-sign",
            ERROR,
            f"the step moves the parameters uphill: the cosine of its updates with the downhill direction of the "
            f"cross-entropy is {cosine:.2f} at each of {len(watched.cosines)} steps",
            fix="minimise the cross-entropy itself: drop the extra minus in the loss, the gradients or the rate",
            where="train_step" if exam.subject.train_step else "loss",
            cosine=cosine,
        )


def _state(exam: Examination, optimizer: Optimizer, watched: Watched) -> None:
    adams = [o for o in parts(optimizer) if isinstance(o, Adam) or "adam" in type(o).__name__.lower()]
    if not adams:
        exam.check("optimiser state is kept", None, "judged for Adam and its kin")
        return
    later = watched.spreads[1:]
    # Adam from nothing moves every entry by the same amount, whatever its gradient.
    alike = len(later) >= 3 and max(later) < min(0.05, 5 * watched.spreads[0] + 0.005)
    fresh = alike and not any(d > 1e-3 for d in watched.decays)
    exam.check("optimiser state is kept", not fresh, f"spread of update sizes {np.median(later or [0]):.2f}")
    if fresh:
        exam.found(
            "state-not-kept",
            ERROR,
            f"after {watched.updates} steps every entry still moves by the same amount (spread "
            f"{max(later):.1%}), as Adam does on its very first step: its moments start from 0 each time",
            fix="make the optimiser once, do not call init again, and list optimizer.state in the inputs and outputs "
            "of mx.compile",
            where="train_step",
            spread_of_update_sizes=[round(s, 4) for s in watched.spreads],
            optimizer_steps=int(adams[0].step),
            updates=watched.updates,
        )
    plain = [o for o in adams if not getattr(o, "bias_correction", True)]
    if plain:
        b1, b2 = (float(beta) for beta in plain[0].betas)
        steps = np.arange(1, 1000)
        factors = (1 - b1**steps) / np.sqrt(1 - b2**steps)
        worst = int(factors.argmax())
        exam.facts["no_bias_correction"] = (b1, b2)
        exam.found(
            "no-bias-correction",
            ERROR if factors.max() > _OVERSTEP else WARNING,
            f"Adam runs without bias correction (MLX's default): its first update is {factors[0]:.2f} times the "
            f"learning rate, that of step {worst + 1} {factors.max():.1f} times, and comparisons with other betas "
            "are unfair",
            fix=f"pass bias_correction=True to {type(plain[0]).__name__}",
            where="optimizer",
            first_step_factor=float(factors[0]),
            largest_factor=float(factors.max()),
            betas=[b1, b2],
        )


def _decay(exam: Examination, watched: Watched) -> None:
    peak = exam.schedule.peak
    decays = np.array(watched.decays or [0.0])
    decay = float(np.median(decays))
    rates = np.array([rate or 0.0 for rate in watched.rates[: len(decays)]])
    follows = False
    if exam.schedule.scheduled and len(rates) == len(decays) > 2 and rates.min() > 0 and decay > 0:
        shares = decays / rates
        follows = bool(np.std(shares) / np.mean(shares) < np.std(decays) / np.mean(decays))
        if follows:  # at the peak of the schedule
            decay = float(np.median(shares)) * peak
    exam.facts["decay"], exam.facts["decay_follows_rate"] = decay, follows
    heavy = decay > _DECAY_ERROR and peak > 0
    exam.check("weight decay", not heavy, f"{max(decay, 0):.1e} of the weights a step")
    if decay > _DECAY_WARNING:
        exam.facts["heavy_decay"] = decay


def _returned_loss(exam: Examination) -> None:
    """Fit what the step returns to our own cross-entropy of the model before the step."""
    rng = np.random.default_rng((exam.seed, 31))
    model = exam.noisy(5)
    kept = dict(tree_flatten(model.parameters()))
    optimizer = exam.optimizer()
    model.train()
    probe = exam.probe_batch(0).inputs
    exam.seed_all(1)
    first = np.array(exam.logits(model, np.maximum(probe, 0)))
    exam.seed_all(2)
    if not np.array_equal(first, np.array(exam.logits(model, np.maximum(probe, 0)))):
        exam.check("the step's loss", None, "dropout hides its formula")
        return
    pads = any((b.mask == 0).any() for b in exam.train.batches)
    cases, values = [], []
    for call in range(8):
        sample = exam.probe_batch(call)
        targets = rng.integers(0, exam.subject.vocab_size, sample.shape)
        mask = np.ones(sample.shape, np.float32)
        if sample.masked:
            length = sample.shape[1]
            kept_cells = rng.integers(length // 2, length + 1, sample.shape[0])[:, None]
            mask = (np.arange(length) < kept_cells).astype(np.float32)
        batch = sample.with_(targets=targets, mask=mask)
        logits = np.array(exam.logits(model, np.maximum(batch.inputs, 0)))
        values.append(exam.step(model, optimizer, batch))
        put(model, kept)
        cases.append((logits, batch.inputs, targets, mask))
    found = fit(cases, np.array(values))
    if found is None:
        exam.check("the step's loss", None, "its formula was not recognised")
        return
    drafts = judge_objective(found, "train_step", pads=pads, size=exam.subject.vocab_size)
    for draft in drafts:
        exam.climb.found(draft, exam.rung, None)
    bad = any(draft.severity == ERROR for draft in drafts)
    exam.check("loss is the masked cross-entropy", not bad, str(found))


@dataclass(frozen=True)
class Clip:
    """Gradients reach the optimiser with a constant norm, or a constant largest entry.

    Attributes:
        kind: ``norm`` or ``value``.
        limit: that constant.
        share: what is left of the gradient's norm, median over batches.
    """

    kind: str
    limit: float
    share: float


def clipping(exam: Examination) -> Clip | None:
    """Find a clip that binds on every one of several batches, from the gradients that reach the optimiser."""
    seen, largest, own = [], [], []
    for call in range(3):
        model, optimizer = exam.model(), exam.optimizer()
        model.train()
        batch = exam.probe_batch(call)
        before = dict(tree_flatten(model.parameters()))
        own.append(_norm(_user_gradient(exam, model, batch)))
        received: dict[str, mx.array] = {}
        with intercepted(
            optimizer, lambda gradients, kept=received: kept.update(tree_flatten(gradients)) or gradients
        ):
            exam.step(model, optimizer, batch)
        try:
            mx.eval(received)
        except (RuntimeError, ValueError):  # seen inside mx.compile
            received = _received(optimizer, before, dict(tree_flatten(model.parameters())))
        if not received:
            return None
        seen.append(_norm(received))
        largest.append(max(float(mx.abs(g).max()) for g in received.values()))
    share = float(np.median(np.array(seen) / np.maximum(own, 1e-30)))
    varies = np.std(own) > 1e-3 * np.mean(own)
    if not varies or min(seen) <= 0 or not np.isfinite(seen).all():
        return None
    if np.std(seen) < 2e-4 * np.mean(seen):
        return Clip("norm", float(np.mean(seen)), share)
    if np.std(largest) < 1e-4 * np.mean(largest) and share < 1:
        return Clip("value", float(np.mean(largest)), share)
    return None


def _user_gradient(exam: Examination, model: nn.Module, batch: HostBatch) -> dict[str, mx.array]:
    def loss(m):
        return exam.loss(m, batch) if exam.subject.loss is not None else masked_mean(m, batch.device())

    with exam.calling("loss"):
        tree = nn.value_and_grad(model, loss)(model)[1]
        flat = {n: g for n, g in tree_flatten(tree) if isinstance(g, mx.array)}
        mx.eval(flat)
    return flat


def _norm(arrays: dict[str, mx.array]) -> float:
    return float(mx.sqrt(sum(a.astype(mx.float32).square().sum() for a in arrays.values())))


def _received(optimizer: Optimizer, before, after) -> dict[str, mx.array]:
    """The gradient that a fresh optimiser received in its one step so far, from its state."""
    received: dict[str, mx.array] = {}
    for part in parts(optimizer):
        flat = dict(tree_flatten(part.state))
        leaves = {name.rpartition(".")[2] for name in flat}
        kind, betas = type(part).__name__.lower(), getattr(part, "betas", None)
        momentum = getattr(part, "momentum", 0)
        key = "m" if "m" in leaves else "v"
        if betas is not None and "m" in leaves:
            factor = 1 - float(betas[1] if "lion" in kind else betas[0])
        elif (
            isinstance(momentum, (int, float))
            and momentum
            and key in leaves
            and len(leaves & {"m", "v"}) == 1
        ):
            factor = 1 - momentum if "muon" in kind else 1.0
        elif "sgd" in kind:
            rate = read_rate(part) or 0.0
            if not rate:
                return {}
            return {n: (before[n].astype(mx.float32) - after[n].astype(mx.float32)) / rate for n in before}
        else:
            return {}
        for name, value in flat.items():
            path, _, leaf = name.rpartition(".")
            if leaf == key:
                received[path] = value.astype(mx.float32) / factor
    return received
