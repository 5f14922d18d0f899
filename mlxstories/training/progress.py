"""Where a training stands, and what its last steps measured."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mlxstories.errors import listed
from mlxstories.model import block_of
from mlxstories.training.cooldown import Cooldown
from mlxstories.training.step import StepResult


@dataclass
class Progress:
    """Where a run stands. Together with the weights and the optimiser's state it is all a resumed run needs:
    every step draws its randomness from the seed and its own number.

    Attributes:
        step: updates done.
        tokens: real tokens trained on, up to the last line of metrics.
        epoch, batch: the data position, the next microbatch to train on.
        seconds: spent so far, evaluations included.
        window: nats, tokens, hits and gradient norm of each step since the last line of metrics.
        window_seconds: spent on them.
        best_loss: the lowest validation loss, or None before the first validation.
        best_step: updates done when it was measured.
        stale: validations since that one.
        cooldown: the one that began before its time, or None.
        extra_updates: spent on repairs: those of trials and those that were thrown away.
    """

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    window: list[list[float]] = field(default_factory=list)
    window_seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    stale: int = 0
    cooldown: Cooldown | None = None
    extra_updates: int = 0

    def validated(self, loss: float) -> None:
        """Take in the loss of a validation."""
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step, self.stale = loss, self.step, 0
        else:
            self.stale += 1


class NotFinite(Exception):
    """The loss or a gradient became infinite or NaN; the message says at which step and where."""


class Window:
    """What the steps since the last line of metrics measured, kept in ``progress``.

    A step's numbers are read while the next one runs, so the device never waits for the host.
    """

    def __init__(self, names: list[str], progress: Progress):
        self._names, self._progress = names, progress
        self._pending: StepResult | None = None
        self._norms: mx.array | None = None  # of the step that was read last
        self.restart_clock()

    def restart_clock(self) -> None:
        self._began = time.perf_counter()

    def add(self, result: StepResult) -> None:
        if self._pending is not None:
            self._read()
        self._pending = result

    def _read(self) -> None:
        self._progress.window.append([float(value) for value in self._pending[:4]])
        self._norms, self._pending = self._pending.norms, None

    def settle(self) -> None:
        """Wait for the last step. Raises NotFinite."""
        self._read()
        self._progress.window_seconds += time.perf_counter() - self._began
        self.restart_clock()
        nats, _, _, norms = np.array(self._progress.window, dtype=np.float64).T
        bad = ~np.isfinite(nats) | ~np.isfinite(norms)
        if bad.any():
            step = self._progress.step - len(bad) + int(bad.argmax()) + 1
            wrong = [name for name, value in self._norm_of().items() if not math.isfinite(value)]
            where = f"the gradient of {listed(wrong, 1)}" if wrong else "loss or gradient"
            raise NotFinite(f"step {step}: {where} is not finite.")

    def _norm_of(self) -> dict[str, float]:
        """The last step's gradient norm of each parameter; empty where it was not asked for."""
        if self._norms is None:
            return {}
        return dict(zip(self._names, np.array(self._norms).tolist(), strict=True))

    def flush(self) -> dict:
        """A line of metrics; the window starts anew."""
        self.settle()
        nats, tokens, hits, norms = np.array(self._progress.window, dtype=np.float64).T
        blocks: dict[str, float] = {}
        for name, value in self._norm_of().items():
            block = block_of(name)
            blocks[block] = math.hypot(blocks.get(block, 0.0), value)
        record = {
            "split": "train",
            "loss": nats.sum() / tokens.sum(),
            "accuracy": hits.sum() / tokens.sum(),
            "grad_norm": norms[-1],
            "block_grad_norms": blocks,
            "tokens_per_second": tokens.sum() / self._progress.window_seconds,
        }
        self._progress.tokens += int(tokens.sum())
        self._progress.window, self._progress.window_seconds = [], 0.0
        return record
