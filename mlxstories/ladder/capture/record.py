"""What was seen of a script: its updates, and the model's calls outside of gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.capture.accumulation import Collected
from mlxstories.ladder.capture.hooks import Listed
from mlxstories.ladder.capture.model_uses import Use
from mlxstories.ladder.capture.passes import Evaluations
from mlxstories.ladder.where.places import Line


@dataclass
class Update:
    """One update as it really came: gradients since the last one, learning rate, its line, whether the optimiser had
    made none before (None where it is passed over), what became of the gradients where it collects several, and the
    rate that the script's own variables name."""

    gradients: int
    rate: float | None
    line: Line | None
    fresh: bool | None = None
    collected: Collected | None = None
    meant: float | None = None
    training: bool = True


@dataclass
class Forward:
    """A call of the model outside of gradients: [B, T] ids, the argmax at each cell, whether it was in training mode
    and used random numbers, as dropout does, and the lines."""

    ids: Any
    best: Any
    drops: bool
    lines: list[Line]


@dataclass
class Compiled:
    """A compiled function that makes updates: whether its inputs list the states of model, optimiser and random
    numbers, whether it has outputs, and its line."""

    model: bool
    optimizer: bool
    random: bool
    outputs: bool
    line: Line | None


def compiled(listed: Listed, model: nn.Module, optimizer: Optimizer | None) -> Compiled:
    """What the inputs and outputs that a function lists say of this training."""
    return Compiled(
        model=listed.holds("inputs", model, model.state),
        optimizer=listed.holds("inputs", optimizer, getattr(optimizer, "state", None)),
        random=listed.holds("inputs", mx.random.state),
        outputs=listed.outputs is not None,
        line=listed.line,
    )


@dataclass
class Saved:
    """What was saved between two updates: names of the model's trained parameters, those that training had moved by
    then but that were left out so far, and the line."""

    names: set[str]
    missing: set[str]
    line: Line | None


@dataclass
class Seen:
    """What only the script itself shows, in the order in which it happened."""

    updates: list[Update] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    gradient: list[Line] = field(default_factory=list)
    loss: Line | None = None  # that defines the function whose gradient it is
    rounds: int | None = None  # of the loops around the gradient, where they say
    seldom: bool = False  # something more is done every so many of them
    shared: bool = False  # the model is updated by several optimisers
    drawn: Line | None = None  # the line that hands over the batch
    compiled: Compiled | None = None
    tokenizers: list[Any] = field(default_factory=list)  # that are at hand at the gradient
    # where the model is called outside of gradients
    uses: dict[tuple[Line, ...], Use] = field(default_factory=dict)
    saved: dict[int, Saved] = field(default_factory=dict)  # by the updates before
    empty: list[float] = field(default_factory=list)  # losses of batches in which nothing counts
    evaluations: Evaluations = field(default_factory=Evaluations)
    notes: list[str] = field(default_factory=list)
