"""What only the script itself shows, before any ladder: its updates, its evaluation, its decoding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.findings import ERROR, NOTE, WARNING, Finding, Place
from mlxstories.ladder.capture import accumulation, rates
from mlxstories.ladder.capture.copies import host
from mlxstories.ladder.capture.modes import validates_while_training
from mlxstories.ladder.capture.places import below
from mlxstories.ladder.capture.record import Forward
from mlxstories.ladder.subject import blame, describe_error
from mlxstories.ladder.where.places import place

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_RUNG = "script"
_AWAY = 2.0  # times the first loss
DROPOUT = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)


def findings(script: CapturedScript) -> list[Finding]:
    """Findings from the recording alone, each with its line."""
    found = (
        _nothing,
        _no_update,
        _state_not_kept,
        accumulation.findings,
        _compiled,
        rates.findings,
        _dropout,
        _decoding,
        _saved,
    )
    return [finding for look in found for finding in look(script)]


def failures(script: CapturedScript) -> list[Finding]:
    """What the script raised after an update, such as where it validates. If the loss had run away, as in trials of
    rates, it may be a guard against that, and is left out."""
    raised, loss = script.loop.failed or (None, 0.0)
    if raised is None or not loss < _AWAY * script.losses[0]:
        return []
    file, _, line = (blame(raised) or "").rpartition(":")
    return [
        Finding(
            "subject-error",
            WARNING,
            _RUNG,
            f"after an update the script raised {describe_error(raised)}: a run that gets there ends with it",
            {"exception": type(raised).__name__},
            "fix what it raises there; its loop was started again, and examined to the end",
            Place.at(file, int(line)) if line.isdigit() else None,
        )
    ]


def _nothing(script: CapturedScript) -> Iterator[Finding]:
    """Batches in which no target counts, and whose loss is not a number: one such update spoils all weights."""
    empty = script.loop.seen.empty
    broken = sum(not np.isfinite(loss) for loss in empty)
    if broken:
        yield Finding(
            "not-finite",
            ERROR,
            _RUNG,
            f"in {broken} of {len(script.batches)} batches no target counts, and the loss there is "
            f"{next(loss for loss in empty if not np.isfinite(loss))}",
            {"batches": broken},
            "leave such batches out, or divide by mx.maximum(mask.sum(), 1)",
            place(script.loop.seen.gradient[-1]),
        )


def _no_update(script: CapturedScript) -> Iterator[Finding]:
    loop = script.loop
    if not loop.seen.updates and len(script.losses) >= 8:
        yield Finding(
            "no-update",
            ERROR,
            _RUNG,
            f"{len(script.losses)} gradients were taken, and no update of the model followed",
            {"gradients": len(script.losses)},
            "hand the gradients to optimizer.update(model, gradients)",
            place(loop.seen.gradient[-1]),
        )


def _state_not_kept(script: CapturedScript) -> Iterator[Finding]:
    updates = [update for update in script.loop.seen.updates if update.fresh is not None]
    fresh = [update for update in updates if update.fresh]
    if len(fresh) >= 3 and 2 * len(fresh) > len(updates):
        yield Finding(
            "state-not-kept",
            ERROR,
            _RUNG,
            f"{len(fresh)} of {len(updates)} updates were made by an optimiser that had made none before",
            {"fresh": len(fresh), "updates": len(updates)},
            "make the optimiser once, before the loop",
            place(script.loop.made or fresh[0].line),
        )


def _compiled(script: CapturedScript) -> Iterator[Finding]:
    """A compiled step sees only the first value of anything that it does not list among its inputs.

    Source: MLX's documentation, Compilation, "Compiling Training Graphs".
    """
    step, optimizer = script.loop.seen.compiled, script.loop.first_optimizer
    if step is None or not step.outputs:  # with no outputs MLX itself raises at the first evaluation
        return
    holds_state = optimizer is not None and len(optimizer.state) + len(optimizer._schedulers) > 2
    if not step.model:
        yield Finding(
            "stale-computation",
            ERROR,
            _RUNG,
            "the compiled step's inputs do not list the model's state: each step starts from the first weights",
            {"inputs_hold_model": False},
            "compile it with inputs=[model.state, optimizer.state, mx.random.state], and the same as outputs",
            place(step.line),
        )
    elif not step.optimizer and holds_state:
        yield Finding(
            "state-not-kept",
            ERROR,
            _RUNG,
            "the compiled step's inputs do not list the optimiser's state: each step starts from the first one",
            {"inputs_hold_optimizer": False},
            "compile it with inputs=[model.state, optimizer.state, mx.random.state], and the same as outputs",
            place(step.line),
        )
    drops = [m for m in script.loop.snapshot.modules() if isinstance(m, DROPOUT) and m._p_1 < 1]
    if drops and not step.random:
        yield Finding(
            "stale-computation",
            WARNING,
            _RUNG,
            f"the compiled step lists no mx.random.state: {len(drops)} dropout layers drop the same units for ever",
            {"dropout_layers": len(drops)},
            "list mx.random.state among its inputs and outputs",
            place(step.line),
        )


def _dropout(script: CapturedScript) -> Iterator[Finding]:
    layers = [m for m in script.loop.snapshot.modules() if isinstance(m, DROPOUT) and m._p_1 < 1]
    if not layers:
        return
    trained = {batch[0].tobytes() for batch in script.batches}
    wrong = [
        forward
        for forward in script.loop.seen.forwards
        if forward.drops and len(forward.ids) > 1 and _ids(forward).tobytes() not in trained
    ]
    if wrong:
        yield Finding(
            "dropout-in-evaluation",
            ERROR,
            _RUNG,
            f"{len(wrong)} forward passes of validation run in training mode, with {len(layers)} dropout layers on",
            {"passes": len(wrong), "dropout_layers": len(layers)},
            "call model.eval() before validation, and model.train() after it",
            place(below(wrong[0].lines, script.loop.seen)),
        )
    elif not any(len(forward.ids) > 1 for forward in script.loop.seen.forwards):
        yield from _never_off(script, len(layers))


def _never_off(script: CapturedScript, layers: int) -> Iterator[Finding]:
    """Dropout that nothing switches off, in a script whose validation was not seen."""
    loop = script.loop
    line = validates_while_training({loop.seen.gradient[0].file, *loop.script.world.sources})
    if line is not None:
        yield Finding(
            "dropout-in-evaluation",
            NOTE,
            _RUNG,
            f"nothing here calls model.eval(): held-out data, which were not come to, are judged with {layers} dropout "
            "layers on",
            {"dropout_layers": layers},
            "call model.eval() before validation, and model.train() after it",
            place(line),
        )


def _decoding(script: CapturedScript) -> Iterator[Finding]:
    """Tokens that are always the argmax at one position that is not the last one."""
    told = list(_told(script.loop.seen.forwards))
    if len(told) < 8:
        return
    last = np.array([best[-1] == token for _, best, token in told])
    first = np.array([best[0] == token for _, best, token in told])
    before = np.array([len(best) > 1 and best[-2] == token for _, best, token in told])
    for right, where in ((first, "the first"), (before, "the last but one")):
        if right.all() and not last.all():
            line = below(told[0][0].lines, script.loop.seen)
            yield Finding(
                "generation-mismatch",
                ERROR,
                _RUNG,
                f"{len(told)} tokens were generated, each the likeliest one at {where} position, not at the last",
                {"tokens": len(told), "likeliest_at_last": float(last.mean())},
                "take the logits of the last position, logits[:, -1]",
                place(line),
            )
            return


def _saved(script: CapturedScript) -> Iterator[Finding]:
    """A checkpoint that holds most of the trained weights and leaves others out, over however many files."""
    for saved in script.loop.seen.saved.values():
        if saved.missing and len(saved.missing) < len(saved.names):
            first, *more = sorted(saved.missing)
            yield Finding(
                "hidden-parameters",
                ERROR,
                _RUNG,
                f"the checkpoint holds {len(saved.names)} trained parameters of the model, but not {first}"
                + (f" and {len(more)} more" if more else "")
                + ": loaded again, the model is another",
                {"saved": len(saved.names), "missing": sorted(saved.missing)},
                "save dict(tree_flatten(model.parameters())), or model.save_weights",
                place(saved.line),
            )
            return


def _told(forwards: list[Forward]) -> Iterator[tuple[Forward, np.ndarray, int]]:
    """Calls on one row, each with the token by which the next row is longer (or has moved on)."""
    for one, two in itertools.pairwise(forwards):
        if one.best is None or two.best is None or one.lines != two.lines:
            continue
        a, b = _ids(one)[0], _ids(two)[0]
        grown = len(b) == len(a) + 1 and (b[:-1] == a).all()
        moved = len(b) == len(a) > 1 and (b[:-1] == a[1:]).all()
        if grown or moved:
            yield one, np.array(one.best)[0], int(b[-1])


def _ids(forward: Forward) -> np.ndarray:
    ids = forward.ids
    return host(ids if isinstance(ids, mx.array) else mx.array(ids)).astype(np.int64)
