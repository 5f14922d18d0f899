"""Findings that the curves of a run show while it trains."""

from __future__ import annotations

import math
from types import SimpleNamespace

from mlxstories.findings import ERROR, WARNING, Finding
from mlxstories.findings.limits import BELOW_FLOOR, WORSE_THAN_GUESSING, Limit

LIMITS = SimpleNamespace(
    growth=Limit(100.0, "times the early level of the gradient norm"),
    vanished=Limit(1e-6, "gradient norm"),
    worse=WORSE_THAN_GUESSING,
    stuck=Limit(0.98, "of the first loss, or of that of guessing"),
    below_floor=BELOW_FLOOR,
    overfitting=Limit(0.1, "nats above the best validation loss"),
)
_RECENT = 20  # reports
_STUCK_AFTER = 10  # reports without progress


class Watch:
    """Fed with a run's figures at report intervals; reports each problem once.

    `mlxstories.ladder.watch` takes the figures of a loop of your own, and feeds one.

    Args:
        floor: entropy of the source in nats per token, or None.
        vocab_size: for the loss of guessing, or None.
    """

    def __init__(self, *, floor: float | None = None, vocab_size: int | None = None):
        self._floor = floor
        self._guess = math.log(vocab_size) if vocab_size else None
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._val: list[float] = []
        self._told: set[str] = set()

    def __call__(
        self,
        step: int,
        *,
        loss: float | None = None,
        grad_norm: float | None = None,
        val_loss: float | None = None,
    ) -> list[Finding]:
        """Take the figures at ``step`` updates (nats per token, unsmoothed) and return what is new."""
        found = [
            *self._finite(step, loss, grad_norm, val_loss),
            *self._gradient(step, grad_norm),
            *self._progress(step, loss),
            *self._validation(step, val_loss),
        ]
        new = [finding for finding in found if finding.code not in self._told]
        self._told |= {finding.code for finding in new}
        return new

    def _finite(self, step, *values):
        broken = [value for value in values if value is not None and not math.isfinite(value)]
        if broken:
            yield _finding(
                "not-finite",
                ERROR,
                f"at step {step} the loss or the gradient norm is {broken[0]}",
                "lower the learning rate or clip the gradient norm at 1",
                step=step,
            )

    def _gradient(self, step, norm):
        if norm is None or not math.isfinite(norm):
            return
        early = sorted(self._norms[:_RECENT])[len(self._norms[:_RECENT]) // 2] if self._norms else norm
        self._norms.append(norm)
        if len(self._norms) > 5 and early > 0 and LIMITS.growth.above(min(self._norms[-3:]) / early):
            yield _finding(
                "exploding-gradient",
                ERROR,
                f"at step {step} the gradient norm is {norm:.3g}, {norm / early:.0f} times its early level",
                "lower the learning rate or clip the gradient norm at 1",
                step=step,
                gradient_norm=norm,
                early=early,
            )
        if len(self._norms) >= 3 and LIMITS.vanished.below(max(self._norms[-3:])):
            yield _finding(
                "vanishing-gradient",
                ERROR,
                f"at step {step} the gradient norm is {norm:.1e}",
                "run `mlxstories debug` to find the part that cuts the gradient off",
                step=step,
                gradient_norm=norm,
            )

    def _progress(self, step, loss):
        if loss is None or not math.isfinite(loss):
            return
        self._losses.append(loss)
        if self._guess is None or len(self._losses) < _STUCK_AFTER:
            return
        recent = sum(self._losses[-3:]) / 3
        if LIMITS.worse.above(recent - max(self._guess, min(self._losses))):
            yield _finding(
                "learning-rate-too-large",
                ERROR,
                f"at step {step} the loss is {recent:.2f}, worse than guessing ({self._guess:.2f})",
                "lower the learning rate tenfold",
                step=step,
                loss=recent,
                guessing=self._guess,
            )
        elif LIMITS.stuck.above(recent / min(self._losses[0], self._guess)):
            yield _finding(
                "learning-rate-too-small",
                WARNING,
                f"after {step} steps the loss, {recent:.2f}, has hardly left its start ({self._losses[0]:.2f})",
                "raise the learning rate tenfold, or run `mlxstories debug` for the cause",
                step=step,
                loss=recent,
                start=self._losses[0],
            )

    def _validation(self, step, loss):
        if loss is None or not math.isfinite(loss):
            return
        self._val.append(loss)
        if self._floor is not None and LIMITS.below_floor.above(self._floor - loss):
            yield _finding(
                "too-good-to-be-true",
                ERROR,
                f"at step {step} the validation loss, {loss:.3f}, lies below the source's entropy of "
                f"{self._floor:.3f} nats, which no honest model can reach",
                "look for a leak: run `mlxstories debug`",
                step=step,
                loss=loss,
                floor=self._floor,
            )
        best = min(self._val)
        # Training that gets worse too has another cause than overfitting.
        learns = bool(self._losses) and self._losses[-1] < best
        if learns and len(self._val) >= 4 and LIMITS.overfitting.above(min(self._val[-3:]) - best):
            yield _finding(
                "overfitting",
                WARNING,
                f"at step {step} the validation loss is {loss:.3f}, {loss - best:.2f} above its best",
                "stop earlier, use more stories, or add dropout",
                step=step,
                loss=loss,
                best=best,
            )


def _finding(code: str, severity: str, message: str, fix: str, **evidence) -> Finding:
    return Finding(code, severity, "training", message, evidence, fix)
