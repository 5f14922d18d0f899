"""The minimal batch at learning rates other than the subject's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx.utils import tree_map

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.loss.sum_over_tokens import sum_over_tokens
from mlxstories.ladder.bench.samples import minimal_batch
from mlxstories.ladder.bench.step.adam import uncorrected_betas
from mlxstories.ladder.bench.training.memorising import memorising, start_loss
from mlxstories.ladder.bench.training.trial import Trial, train

_USUAL = (0.01, 0.3, 3.0)
_WIDE = (0.01, 0.1, 10.0, 100.0, 1000.0)
_SMALL = (1e-4, 1e-3, 0.01, 0.1)
_SMALLEST = (1e-3, 1e-4, 1e-5)
_EXPLODED = 4.0  # times the first loss, at any time
_REACH = 1e5  # times the subject's own rate, or its share, at most
_FEW, _MORE = 20, 30  # steps


@dataclass(frozen=True)
class RateSweep:
    """Losses and accuracies on the minimal batch by multiples of the subject's own rate.

    Attributes:
        by_scale: multiple to (loss, accuracy); a loss of NaN where the run broke down.
        steps: of each run.
        start: the loss from which learning is counted.
    """

    by_scale: dict[float, tuple[float, float]]
    steps: int
    start: float

    def gain(self, scale: float) -> float:
        """How much of the loss is gone at this multiple; minus infinity where the run broke down."""
        loss = self.by_scale[scale][0]
        return self.start - loss if math.isfinite(loss) else -math.inf

    @property
    def best(self) -> float:
        """The multiple that gains most."""
        return max(self.by_scale, key=self.gain)

    @property
    def on_the_edge(self) -> bool:
        """Whether the best multiple is the largest or the smallest, so that a better one may lie beyond."""
        edge = self.best in (max(self.by_scale), min(self.by_scale))
        return edge and 1 / _REACH < self.best < _REACH


@measurement
def rate_sweep(bench: Bench) -> RateSweep:
    """Train at a few rates; at more of them, and longer, where the subject's own memorises nothing."""
    own = memorising(bench)
    steps = len(own.trial.losses)
    steps = min(_FEW, steps) if own.learned else min(_MORE, max(_FEW, steps))
    sweep = RateSweep({}, steps, start_loss(bench))
    _try_all(bench, sweep, (1.0, *_scales(own.trial, sweep.start, own.learned)))
    if not math.isfinite(sweep.gain(sweep.best)):  # all too large: look further down
        _try_all(bench, sweep, _SMALLEST)
    if not own.learned:
        _look_beyond(bench, sweep)
    return sweep


def _scales(own: Trial, start: float, learned: bool) -> tuple[float, ...]:
    if learned:
        return _USUAL
    worst = max((loss for _, loss, _ in own.points), default=start)
    return _SMALL if not own.finite or worst > _EXPLODED * start else _WIDE


def _try_all(bench: Bench, sweep: RateSweep, scales: tuple[float, ...]) -> None:
    for scale in scales:
        sweep.by_scale[scale] = attempt(bench, sweep.steps, scale=scale)


def _look_beyond(bench: Bench, sweep: RateSweep) -> None:
    """Continue by factors of ten for as long as that gains."""
    while sweep.on_the_edge:
        best = sweep.best
        beyond = best * 10 if best > 1 else best / 10
        _try_all(bench, sweep, (beyond,))
        if sweep.gain(beyond) <= sweep.gain(best):
            break


def attempt(bench: Bench, steps: int, **options: Any) -> tuple[float, float]:
    """Loss and accuracy on the minimal batch after a run of `train`; NaN and 0 where it broke down."""
    trial = retry(bench, steps, **options)
    return trial.points[-1][1:] if trial.points and trial.finite else (math.nan, 0.0)


def retry(bench: Bench, steps: int, **options: Any) -> Trial:
    """Train on the minimal batch once more, with a difference."""
    batch = minimal_batch(bench)
    return train(bench, [batch], steps, measure=batch, at=(steps,), **options)


@measurement
def longer_run(bench: Bench) -> tuple[float, tuple[float, float]]:
    """A third of the best multiple of the sweep, for as long as memorising took: (multiple, (loss, accuracy))."""
    scale = rate_sweep(bench).best / 3
    return scale, attempt(bench, len(memorising(bench).trial.losses), scale=scale)


@measurement
def corrected_run(bench: Bench) -> Trial | None:
    """Memorising with the bias correction that an Adam lacks; None where none lacks it."""
    if uncorrected_betas(bench) is None:
        return None
    return retry(bench, len(memorising(bench).trial.losses), corrected=True)


@measurement
def divided_run(bench: Bench) -> tuple[float, float] | None:
    """Loss and accuracy after a run of the sweep with gradients divided by the number of tokens that the loss sums;
    None where it is no sum."""
    if sum_over_tokens(bench) is None:
        return None
    tokens = float((minimal_batch(bench).mask > 0).sum())
    return attempt(
        bench, rate_sweep(bench).steps, receive=lambda gradients: tree_map(lambda g: g / tokens, gradients)
    )


@measurement
def plain_run(bench: Bench) -> Trial:
    """Memorising as the subject's own run begins: nothing scaled."""
    return retry(bench, len(memorising(bench).trial.losses), plain=True)


def transformed(bench: Bench, transform: Callable[[dict, dict, int], dict]) -> Trial:
    """Memorising with a transform of each update."""
    return retry(bench, len(memorising(bench).trial.losses), transform=transform)
