"""Gradients that a loop accumulates for one update: which of them reach it, with what weight, and from which
batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from mlxstories.findings import ERROR, WARNING, Finding
from mlxstories.ladder.where.places import place
from mlxstories.trees import by_path

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_RUNG = "script"
_ENTRIES = 256  # of each array that are looked at
_UPDATES = 2  # at least, that all show the same
_EXACT = 0.01  # of the gradient that reached the optimiser: the rest is rounding
_APART = 0.02  # of the largest singular value: below, gradients cannot be told apart
_NOTHING = 0.01  # of the largest weight
_ALIKE = 0.02  # weights that are one
_LENGTHS = 1.5  # times as many tokens in one batch as in another
_MEANS = 1.25  # times: losses that do not grow with their tokens


@dataclass
class Taken:
    """One gradient that the script took: entries of its arrays by name, its loss, its inputs, the tokens that count,
    and whether the weights have moved since the one before."""

    entries: dict[str, np.ndarray]
    loss: float
    inputs: bytes
    tokens: float
    moved: bool


@dataclass
class Collected:
    """The gradients of one update, and the weight of each in what reached the optimiser: None where that is not a
    weighted sum of them."""

    taken: list[Taken]
    weights: np.ndarray | None

    @property
    def one_batch(self) -> bool:
        return len({t.inputs for t in self.taken}) == 1


def entries(gradients: Any) -> dict[str, np.ndarray]:
    """Some entries of each array in a tree of gradients, by the array's name."""
    arrays = {
        name: a.reshape(-1) for name, a in by_path(gradients).items() if isinstance(a, mx.array) and a.size
    }
    few = {name: a[:: max(1, a.size // _ENTRIES)].astype(mx.float32) for name, a in arrays.items()}
    return {name: np.array(a, np.float64) for name, a in few.items()}


def taken(batch: tuple[np.ndarray, ...], gradients: Any, loss: float, moved: bool) -> Taken:
    """What is kept of a gradient on a batch of inputs, targets and mask."""
    inputs, _, mask = batch
    return Taken(entries(gradients), loss, inputs.tobytes(), float(mask.sum()), moved)


def collect(taken: list[Taken], gradients: Any) -> Collected | None:
    """What became of the gradients ``taken`` on their way to the optimiser. None for a single one, and where the
    weights moved in between, as in sharpness-aware minimisation."""
    if len(taken) < 2 or any(t.moved for t in taken[1:]):
        return None
    reached = entries(gradients)
    names = sorted(set(reached).intersection(*(t.entries for t in taken)))
    if not names:
        return Collected(taken, None)
    columns = np.stack([np.concatenate([t.entries[n] for n in names]) for t in taken], axis=1)
    return Collected(taken, _weights(columns, np.concatenate([reached[n] for n in names])))


def _weights(columns: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """The weights of columns [n, k] whose sum is the target [n], by least squares."""
    if not (np.isfinite(columns).all() and np.isfinite(target).all() and target.any()):
        return None
    weights, _, _, singular = np.linalg.lstsq(columns, target, rcond=None)
    rest = np.linalg.norm(target - columns @ weights) / np.linalg.norm(target)
    return weights if rest < _EXACT and singular[-1] > _APART * singular[0] else None


def findings(script: CapturedScript) -> Iterator[Finding]:
    """What all of the recorded updates show."""
    updates = [update for update in script.loop.seen.updates if update.collected is not None]
    if len(updates) < _UPDATES:
        return
    collected, where = [update.collected for update in updates], place(updates[0].line)
    for look in (_dropped, _repeated, _uneven):
        draft = look(collected)
        if draft is not None:
            yield Finding(*draft[:2], _RUNG, *draft[2:], where)


def _dropped(collected: list[Collected]) -> tuple | None:
    if any(c.weights is None for c in collected):
        return None
    lost = min(int((abs(c.weights) < _NOTHING * abs(c.weights).max()).sum()) for c in collected)
    number = min(len(c.taken) for c in collected)
    if not lost:
        return None
    return (
        "rows-ignored",
        ERROR,
        f"{lost} of the {number} gradients that are taken for each update are no part of it",
        {"lost": lost, "gradients": number, "updates": len(collected)},
        "add up the gradients, and hand their sum, divided by their number, to the optimiser",
    )


def _repeated(collected: list[Collected]) -> tuple | None:
    """One batch for all gradients of an update, and another batch for the next update."""
    different = {c.taken[0].inputs for c in collected}
    if not all(c.one_batch for c in collected) or len(different) < len(collected):
        return None
    number = min(len(c.taken) for c in collected)
    return (
        "constant-batches",
        ERROR if number > 2 else WARNING,  # two, as of two draws of dropout, may be meant
        f"the {number} gradients that each update collects are all of one batch",
        {"gradients": number, "updates": len(collected)},
        "take the next batch before each gradient, not before each update",
    )


def _uneven(collected: list[Collected]) -> tuple | None:
    """Means per token that get equal weight although they are of very different numbers of tokens."""
    if any(c.weights is None or not np.allclose(c.weights, c.weights[0], rtol=_ALIKE) for c in collected):
        return None
    tokens = np.array([t.tokens for c in collected for t in c.taken])
    losses = np.array([t.loss for c in collected for t in c.taken])
    if tokens.max() < _LENGTHS * tokens.min() or losses.max() > _MEANS * losses.min():
        return None
    return (
        "wrong-normalisation",
        WARNING,
        f"accumulated gradients count alike, each a mean of {tokens.min():.0f} to {tokens.max():.0f} tokens: those of "
        "short batches count for more",
        {"fewest": float(tokens.min()), "most": float(tokens.max())},
        "weigh each gradient with its tokens, and divide the sum by all of them",
    )
