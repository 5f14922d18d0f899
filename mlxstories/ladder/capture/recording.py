"""The script's own loop run on its own batches for a while: what it learns from, its losses, rates and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlxstories.ladder.capture.accumulation import taken
from mlxstories.ladder.capture.batches import one_epoch
from mlxstories.ladder.capture.rates import by_hand, falling, warming
from mlxstories.ladder.capture.running import STOPPED
from mlxstories.ladder.capture.script_findings import DROPOUT
from mlxstories.ladder.time_limit import Deadline

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_SECONDS = 10.0  # of CPU time, after which no more updates are made; as long again for batches alone
_FAR, _LATE = 1200, 6.0  # gradients, and seconds of CPU time, up to which a validation is waited for


def record(script: CapturedScript, steps: int, most: int) -> list[tuple[np.ndarray, ...]]:
    """Run the loop, first as it is and then at the speed of its data; returns its batches (inputs, targets, mask),
    [B, T] each, of one epoch at most.

    Args:
        script: waits at its first gradient, and has been read; its ``losses`` are filled.
        steps: updates that it makes on its own.
        most: batches that are recorded.
    """
    loop = script.loop
    batches, got = _run(script, steps, most)
    if not loop.updated:
        _run_to_the_first_update(script, got)
    elif loop.skipping:
        loop.to_an_update(got)
    loop.skipping = loop.seen.evaluations.open = False
    loop.deadline = None
    if not loop.spare and (spare := loop.came_to_nothing or loop.unused):
        of = "is none" if spare == 1 else "are none"
        loop.on_note(
            f"the first {spare} gradient{'s' * (spare > 1)} {of} of its training loop's: passed over"
        )
        loop.begin_anew(spare)
        loop.begin()
        script.read()
        return record(script, steps, most)
    if loop.waiting is None and loop.script.ended == STOPPED:
        loop.begin_again()  # a validation was cut off
    _note_what_was_seen(script)
    return one_epoch(batches)


def _run(script: CapturedScript, steps: int, most: int) -> tuple[list[tuple[np.ndarray, ...]], Any]:
    """Run it as `record` says, to where enough was seen; returns the batches, and the last gradient that was taken."""
    loop, batches, gradients, deadline = script.loop, [], 0, Deadline(_SECONDS)
    got = batch = late = None
    script.losses = []

    def in_time():
        nonlocal late
        if not loop.skipping or not deadline.passed:
            return True
        late = late or Deadline(_LATE)
        return warming(script) and not late.passed  # to the rate that it really trains at

    def answer(call):
        nonlocal got
        empty = batch is not None and not batch[2].any()
        if loop.skipping and not empty:
            return got
        moved, got = loop.moved(), call.run()
        loss = float(call.loss_of(got))
        if empty:
            loop.seen.empty.append(loss)
        if not loop.skipping:
            script.losses.append(loss)
            if batch is not None:
                loop.taken.append(taken(batch, call.gradient_of(got), loss, moved))
        return got

    while loop.waiting is not None and in_time():
        batch = None
        if len(batches) < most:
            with script.inside():
                batch = script.roles.take(loop.waiting)
            batches.append(batch)
        elif not (warming(script) or _goes_on(script, gradients)):
            break
        done = loop.updated >= steps or len(batches) > 8 * steps or (gradients and deadline.passed)
        if done and not loop.skipping:
            loop.skipping, deadline = True, Deadline(_SECONDS)
        with loop.what_follows(lambda: loop.skipping, script.losses):
            loop.advance(answer)
        gradients += 1
    return batches, got


def _run_to_the_first_update(script: CapturedScript, gradient: Any) -> None:
    """Go on, at the speed of the data, to what the script learns from, if it only looked at the loss so far."""
    loop, deadline = script.loop, Deadline(_LATE)
    loop.skipping = True
    for _ in range(_FAR):
        if loop.waiting is None or loop.updated > 1 or deadline.passed:
            break
        loop.advance(lambda _: gradient)


def _goes_on(script: CapturedScript, gradients: int) -> bool:
    """Whether there is more to see: a validation every so many updates, or a rate that falls. Never at the price of the
    loop's end, and cut off where it takes too long."""
    loop, seen = script.loop, script.loop.seen
    if not (seen.seldom and not seen.evaluations.all) and not falling(script, _FAR):
        return False
    loop.deadline = loop.deadline or Deadline(_LATE)
    near = gradients < min(_FAR, (seen.rounds or _FAR) - 2)
    return near and not loop.deadline.passed


def _note_what_was_seen(script: CapturedScript) -> None:
    loop = script.loop
    if loop.waiting is None and loop.script.ended.startswith("exited"):
        loop.on_note(f"its loop ended after {len(script.losses)} gradients: it {loop.script.ended}")
    for line in loop.script.threads():
        loop.on_note(f"a thread that it has started goes on, and is not ended: {line.function} at {line}")
    if by_hand(script):
        updates = loop.seen.updates
        peak = max(range(len(updates)), key=lambda n: updates[n].rate or 0.0)
        loop.lead = sum(update.gradients for update in updates[:peak])
    # The gradient at which it waits may be of a validation.
    drops = any(isinstance(m, DROPOUT) for m in loop.model.modules())
    if drops and not any([update.training for update in loop.seen.updates] or [loop.model.training]):
        loop.on_note("gradients are taken in evaluation mode: dropout is off while the script trains")
