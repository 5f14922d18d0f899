"""What the figures of a running training say."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from mlxstories.findings import ERROR, WARNING, Finding
from mlxstories.findings.limits import Limit
from mlxstories.ladder.watching.figures import Figures
from mlxstories.training.watch import Watch

LIMITS = SimpleNamespace(
    spike=Limit(10.0, "times the median of the last gradient norms"),
    jump=Limit(1.0, "nats above the median of the last losses"),
    scatter=Limit(8.0, "times the usual distance of a loss from that median"),
    still=Limit(3, "looks in a row without a change"),
    repeats=Limit(3, "looks in a row at the batch before"),
    apart=Limit(1e-3, "of the weights' size, between ranks"),
)
_RECENT = 50  # looks that a median is taken of
_ENOUGH = 8  # before anything is held against it


class Judge:
    """Fed with figures in order; reports each kind of finding once."""

    def __init__(self, floor: float | None = None):
        self.curves = Watch(floor=floor)
        self.losses: deque[float] = deque(maxlen=_RECENT)
        self.norms: dict[str, deque[float]] = {}
        self.still = self.repeats = 0
        self.before: Figures | None = None
        self.told: set[tuple[str, str]] = set()

    def hear(self, figures: Figures, same_batch: bool) -> list[Finding]:
        """What is new at this look; ``same_batch``: its batch is that of the update before."""
        found = [
            *self.curves(figures.step, loss=figures.loss, grad_norm=figures.norm),
            *self._spike(figures),
            *self._still(figures),
            *self._rate(figures),
            *self._repeats(figures, same_batch),
        ]
        self.before = figures
        return self._new(found)

    def validation(self, step: int, loss: float) -> list[Finding]:
        """A validation loss, in nats per token."""
        return self._new(self.curves(step, val_loss=loss))

    def losses_between(self, losses: list[tuple[int, float]]) -> list[Finding]:
        """Losses of updates at which nothing else was looked at, and the one that is looked at now."""
        return self._new([finding for step, loss in losses for finding in self._jump(step, loss)])

    def ranks(self, step: int, apart: float) -> list[Finding]:
        """How far the ranks' weights are apart, relative to their size."""
        if not LIMITS.apart.above(apart):
            return []
        return self._new(
            [
                _finding(
                    "gradient-mismatch",
                    ERROR,
                    f"at update {step} the weights of the ranks differ by {apart:.1e} of their size: each trains "
                    "its own model",
                    "average the gradients of all ranks before every update (nn.average_gradients), and begin with the "
                    "same weights",
                    step=step,
                    apart=apart,
                )
            ]
        )

    def _new(self, found: list[Finding]) -> list[Finding]:
        new = []
        for finding in found:
            if (finding.code, finding.severity) not in self.told:
                self.told.add((finding.code, finding.severity))
                new.append(finding)
        return new

    def _jump(self, step: int, loss: float) -> Iterator[Finding]:
        usual = list(self.losses)
        if not math.isfinite(loss):
            yield _finding(
                "not-finite",
                ERROR,
                f"at update {step} the loss is {loss}",
                "lower the learning rate or clip the gradient norm at 1",
                step=step,
            )
            return
        self.losses.append(loss)
        if len(usual) < _ENOUGH:
            return
        median = float(np.median(usual))
        scatter = float(np.median(np.abs(np.array(usual) - median))) + 1e-6
        if LIMITS.jump.above(loss - median) and LIMITS.scatter.above((loss - median) / scatter):
            yield _finding(
                "exploding-gradient",
                WARNING,
                f"at update {step} the loss jumps from about {median:.2f} to {loss:.2f}{self._first_block()}",
                "look at this batch; clip the gradient norm at 1 or lower the learning rate",
                step=step,
                loss=loss,
                before=median,
            )

    def _first_block(self) -> str:
        if self.before is None or not self.before.norms:
            return ""
        ratios = {name: norm / self._usual(name) for name, norm in self.before.norms.items()}
        return f"; at update {self.before.step} the gradient had grown most in {max(ratios, key=ratios.get)}"

    def _usual(self, name: str) -> float:
        return float(np.median(self.norms.get(name, [1.0]) or [1.0])) or 1e-30

    def _spike(self, figures: Figures) -> Iterator[Finding]:
        norm = figures.norm
        if norm is None or not math.isfinite(norm):
            return
        usual = {name: list(self.norms.setdefault(name, deque(maxlen=_RECENT))) for name in figures.norms}
        for name, value in figures.norms.items():
            self.norms[name].append(value)
        if min(map(len, usual.values())) < _ENOUGH:
            return
        ratios = {name: figures.norms[name] / (float(np.median(usual[name])) or 1e-30) for name in usual}
        first = next((name for name, ratio in ratios.items() if LIMITS.spike.above(ratio)), None)
        if first is not None:
            ids = figures.ids
            yield _finding(
                "exploding-gradient",
                WARNING,
                f"at update {figures.step} the gradient of {first} is {ratios[first]:.0f} times its usual size",
                "look at this batch; clip the gradient norm at 1",
                where=first,
                step=figures.step,
                times_usual=ratios[first],
                batch=None if ids is None else ids.reshape(-1)[:16].tolist(),
            )

    def _still(self, figures: Figures) -> Iterator[Finding]:
        last = self.before
        seen = last is not None and last.weights is not None and figures.weights is not None
        self.still = self.still + 1 if seen and np.array_equal(last.weights, figures.weights) else 0
        if LIMITS.still.above(self.still):
            rate = "" if figures.rate is None else f"; the learning rate is {figures.rate:.3g}"
            yield _finding(
                "no-update",
                ERROR,
                f"up to update {figures.step} the weights have stopped changing{rate}",
                "look at the schedule, at what is frozen, and whether the gradients reach optimizer.update",
                step=figures.step,
                looks=self.still,
            )

    def _rate(self, figures: Figures) -> Iterator[Finding]:
        rate = figures.rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            yield _finding(
                "loss-sign" if rate < 0 else "not-finite",
                ERROR,
                f"at update {figures.step} the learning rate is {rate:.3g}",
                "look at the schedule: it has run past its end or counts from another step",
                step=figures.step,
                rate=rate,
            )

    def _repeats(self, figures: Figures, same_batch: bool) -> Iterator[Finding]:
        self.repeats = self.repeats + 1 if same_batch else 0
        if LIMITS.repeats.above(self.repeats):
            yield _finding(
                "constant-batches",
                ERROR,
                f"up to update {figures.step} each batch is the one before",
                "take the next batch in each step, and make the iterator once, before the loop",
                step=figures.step,
                looks=self.repeats,
            )


def _finding(
    code: str, severity: str, message: str, fix: str, where: str | None = None, **evidence
) -> Finding:
    return Finding(code, severity, "training", message, evidence, fix, where)
