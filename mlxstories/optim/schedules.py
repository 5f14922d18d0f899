"""Learning-rate schedules: functions of the number of updates already done, in MLX operations.

A schedule maps an integer array ``step`` (0 for the first update) to a float32 array of the same shape, can
be compiled, and holds its last value for ever. ``warmup`` counts the first updates: update number ``step``
of them gets ``(step + 1) / warmup`` of the peak, so the first is not zero and the last reaches the peak.
``total`` counts all updates, warmup included; a decay reaches its final value at ``step = total``, after
the last update, so that no update is spent at a rate of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxstories.bounds import check_choice, check_number
from mlxstories.errors import StoriesError

Schedule = Callable[[mx.array], mx.array]

SCHEDULES = ("constant", "linear_warmup", "warmup_linear", "warmup_cosine", "noam", "wsd")
COOLDOWNS = ("sqrt", "linear")


def constant(value: float) -> Schedule:
    """``value`` at every step."""
    check_number("learning rate", value, at_least=0)
    return lambda step: mx.full(step.shape, value, mx.float32)


def linear(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` at step 0 to ``end`` at ``steps``, in a straight line."""
    _check_pieces(start, end, steps)
    return lambda step: end + (start - end) * _remaining(step, steps)


def cosine(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` at step 0 to ``end`` at ``steps``, along half a cosine (Loshchilov and Hutter 2017,
    eq. 5, without restarts)."""
    _check_pieces(start, end, steps)
    # sin(x)^2 = (1 - cos(2x)) / 2, which keeps its digits near the end.
    return lambda step: end + (start - end) * mx.square(mx.sin(math.pi / 2 * _remaining(step, steps)))


def one_minus_sqrt(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` at step 0 to ``end`` at ``steps`` as ``1 - sqrt(step / steps)`` (Hägele et al. 2024,
    eq. 1)."""
    _check_pieces(start, end, steps)

    def rate(step: mx.array) -> mx.array:
        left = _remaining(step, steps)
        return end + (start - end) * left / (1 + mx.sqrt(1 - left))

    return rate


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """The first schedule before ``boundaries[0]``, then the second, which counts its steps from there, and so
    on.

    Raises:
        StoriesError: not one boundary fewer than schedules, or boundaries that fall.
    """
    if len(boundaries) != len(schedules) - 1:
        raise StoriesError(
            f"{len(schedules)} schedules have {len(schedules) - 1} boundaries between them, "
            f"not {len(boundaries)}."
        )
    if any(left > right for left, right in zip([0, *boundaries], boundaries, strict=False)):
        raise StoriesError(f"boundaries must rise from 0; got {list(boundaries)}.")

    def joined(step: mx.array) -> mx.array:
        step = _signed(step)
        value = schedules[0](step)
        for schedule, boundary in zip(schedules[1:], boundaries, strict=True):
            # A piece is also evaluated before its beginning, where its value is not used.
            value = mx.where(step < boundary, value, schedule(mx.maximum(step - boundary, 0)))
        return value

    return joined


def linear_warmup(peak: float, warmup: int) -> Schedule:
    """``peak * min((step + 1) / warmup, 1)``; constant from the start when ``warmup`` is 0."""
    check_number("peak", peak, at_least=0)
    check_number("warmup", warmup, at_least=0, whole=True)
    return lambda step: peak * mx.minimum((_signed(step) + 1).astype(mx.float32) / max(warmup, 1), 1.0)


def warmup_linear(peak: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Linear warmup to ``peak``, then a straight line to ``final`` at ``total``."""
    _check_room(warmup, total)
    return join([linear_warmup(peak, warmup), linear(peak, final, total - warmup)], [warmup])


def warmup_cosine(peak: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Linear warmup to ``peak``, then half a cosine to ``final`` at ``total``."""
    _check_room(warmup, total)
    return join([linear_warmup(peak, warmup), cosine(peak, final, total - warmup)], [warmup])


def noam(peak: float, warmup: int) -> Schedule:
    """The transformer's schedule, ``peak * min(n / warmup, sqrt(warmup / n))`` for update ``n = step + 1``
    (Vaswani et al. 2017, eq. 3, scaled so that ``peak`` is the highest rate; see :func:`noam_peak`)."""
    check_number("peak", peak, at_least=0)
    check_number("warmup", warmup, at_least=1, whole=True)

    def rate(step: mx.array) -> mx.array:
        number = (_signed(step) + 1).astype(mx.float32)
        return peak * mx.minimum(number / warmup, mx.sqrt(warmup / number))

    return rate


def noam_peak(dim: int, warmup: int) -> float:
    """The highest rate of Vaswani et al. 2017, eq. 3: ``dim^-0.5 * warmup^-0.5``."""
    check_number("dim", dim, at_least=1, whole=True)
    check_number("warmup", warmup, at_least=1, whole=True)
    return (dim * warmup) ** -0.5


def wsd(
    peak: float, warmup: int, total: int, cooldown: int, final: float = 0.0, shape: str = "sqrt"
) -> Schedule:
    """Warmup, stable, decay: linear warmup, ``peak``, and over the last ``cooldown`` updates down to
    ``final`` (Hu et al. 2024, section 4); ``shape`` is "sqrt" (Hägele et al. 2024) or "linear"."""
    check_choice("cooldown shape", shape, COOLDOWNS)
    check_number("cooldown", cooldown, at_least=1, whole=True)
    _check_room(warmup + cooldown - 1, total)
    down = one_minus_sqrt if shape == "sqrt" else linear
    start = total - cooldown
    return join([linear_warmup(peak, warmup), down(peak, final, cooldown)], [start])


@dataclass(frozen=True)
class ScheduleConfig:
    """Which shape the learning rate follows; its height is the optimiser's ``learning_rate``.

    Attributes:
        name: one of ``SCHEDULES``.
        warmup: updates of linear warmup when 1 or more, a share of all updates when below 1.
        final: the last rate as a share of the peak, for the schedules that decay to one.
        cooldown: "wsd" only: share of all updates spent decaying, (0, 1].
        cooldown_shape: "wsd" only: "sqrt" or "linear".
        dim: "noam" only: the model's width for the paper's own form, in which the learning rate multiplies
            ``dim^-0.5 * min(n^-0.5, n * warmup^-1.5)``; None makes the learning rate the peak.
    """

    name: str = "linear_warmup"
    warmup: float = 0.05
    final: float = 0.0
    cooldown: float = 0.2
    cooldown_shape: str = "sqrt"
    dim: int | None = None

    def __post_init__(self):
        check_choice("schedule", self.name, SCHEDULES)
        check_number("warmup", self.warmup, at_least=0)
        if self.warmup > 1 and self.warmup != int(self.warmup):
            raise StoriesError(
                f"warmup must be a share below 1 or a whole number of updates; got {self.warmup!r}."
            )
        check_number("final", self.final, at_least=0, at_most=1)
        check_number("cooldown", self.cooldown, above=0, at_most=1)
        check_choice("cooldown_shape", self.cooldown_shape, COOLDOWNS)
        if self.dim is not None:
            check_number("dim", self.dim, at_least=1, whole=True)

    def warmup_steps(self, total_steps: int) -> int:
        """The updates of warmup in a run of ``total_steps``; a share is rounded down."""
        return int(self.warmup if self.warmup >= 1 else self.warmup * total_steps)

    def cooldown_steps(self, total_steps: int) -> int:
        """The last updates of a run of ``total_steps``, those in which "wsd" decays."""
        return max(1, round(self.cooldown * total_steps))

    def total_steps(self, stable: int) -> int:
        """The updates of a run in which "wsd" decays after ``stable`` of them."""
        return round(stable / (1 - self.cooldown))


def build_schedule(config: ScheduleConfig, peak: float, total_steps: int) -> Schedule:
    """The schedule of a run of ``total_steps`` updates whose highest learning rate is ``peak``.

    Raises:
        StoriesError: the warmup (and cooldown) need more updates than there are.
    """
    check_number("total_steps", total_steps, at_least=1, whole=True)
    warmup, final = config.warmup_steps(total_steps), config.final * peak
    if config.name == "constant":
        return constant(peak)
    if config.name == "linear_warmup":
        return linear_warmup(peak, warmup)
    if config.name == "noam":
        warmup = max(1, warmup)
        return noam(peak if config.dim is None else peak * noam_peak(config.dim, warmup), warmup)
    if config.name == "warmup_linear":
        return warmup_linear(peak, warmup, total_steps, final)
    if config.name == "warmup_cosine":
        return warmup_cosine(peak, warmup, total_steps, final)
    cooldown = config.cooldown_steps(total_steps)
    return wsd(peak, warmup, total_steps, cooldown, final, config.cooldown_shape)


def _signed(step: mx.array) -> mx.array:
    # MLX counts updates in uint64, where 3 - 5 is 2^64 - 2.
    return step.astype(mx.int32)


def _remaining(step: mx.array, steps: int) -> mx.array:
    """From 1 at step 0 to 0 at ``steps``; subtracted as integers, which is exact."""
    return mx.clip((steps - _signed(step)).astype(mx.float32) / steps, 0.0, 1.0)


def _check_pieces(start: float, end: float, steps: int) -> None:
    check_number("start", start, at_least=0)
    check_number("end", end, at_least=0)
    check_number("steps", steps, at_least=1, whole=True)


def _check_room(used: int, total: int) -> None:
    if used >= total:
        raise StoriesError(
            f"warmup and cooldown leave no update of the {total}: shorten them or train longer."
        )
