"""A captured script as the `Subject` that the ladder climbs on: its own loop is the step, its own loss the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.ladder.capture.batches import begun_at, whole_batch
from mlxstories.ladder.capture.copies import bound, clone, scalar
from mlxstories.ladder.capture.tokenizer import tokenizer_of
from mlxstories.ladder.subject import Subject

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript


def subject_of(script: CapturedScript) -> Subject:
    """The subject of a script that has been recorded, and whose validation and decoding have been looked for."""
    loop = script.loop
    masked = any((mask == 0).any() for _, _, mask in script.batches)
    batches = [batch if masked else batch[:2] for batch in script.batches]

    def loss(model: nn.Module, batch: Any) -> mx.array:
        if loop.waiting is None:
            loop.begin_again()
        with script.inside(), bound(loop.model, model):
            return scalar(script.loss_on(*whole_batch(batch)))

    def optimizer() -> Optimizer:
        optimizer = clone(loop.first_optimizer)
        rates = script.rates
        if rates and not optimizer._schedulers and not hasattr(optimizer, "optimizers"):
            optimizer.learning_rate = max(rates)  # set by hand, perhaps from a warmup on
        return optimizer

    def step(model: nn.Module, optimizer: Optimizer, batch: Any) -> mx.array:
        parts = whole_batch(batch)
        return loop.step(model, optimizer, lambda call: script.roles.give(call, *parts))

    return Subject(
        model=lambda: clone(loop.snapshot),
        vocab_size=script.roles.first.vocab,
        train_batches=lambda seed: begun_at(seed, batches),
        loss=loss,
        optimizer=optimizer if loop.first_optimizer is not None else None,
        train_step=step,
        val_batches=_val_batches(script, masked),
        evaluate=script.validation,
        generate=script.decoding,
        tokenizer=tokenizer_of(script),
        updates=_updates(script),
        name=Path(script.target).name,
    )


def _val_batches(
    script: CapturedScript, masked: bool
) -> Callable[[], Iterator[tuple[np.ndarray, ...]]] | None:
    """The batches of its own validation, where they were seen; in the form of the training's."""
    seen = script.validation_log.batches
    if not seen:
        return None
    masked = masked or not all(mask.all() for _, _, mask in seen)
    return lambda: iter([batch if masked else batch[:2] for batch in seen])


def _updates(script: CapturedScript) -> int | None:
    """Of the whole run: where the loop has ended already, or says how often it goes around."""
    loop, seen = script.loop, script.loop.seen
    if loop.waiting is None:
        return loop.updated or None
    if seen.rounds is None or not seen.updates:
        return None
    return max(1, seen.rounds // script.collects)
