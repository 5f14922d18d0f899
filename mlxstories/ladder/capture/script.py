"""From a script under watch to a `Subject`: its model, batches, loss, optimiser, and its own loop as the step."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mode
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.errors import StoriesError
from mlxstories.findings import fold
from mlxstories.findings.notebooks import cells, in_cell, is_notebook
from mlxstories.ladder.capture.accumulation import taken
from mlxstories.ladder.capture.again import decoding_of, validation_of
from mlxstories.ladder.capture.batches import begun_at, one_epoch, whole_batch
from mlxstories.ladder.capture.copies import bound, clone, scalar
from mlxstories.ladder.capture.last_place import logits_everywhere
from mlxstories.ladder.capture.loop import INSTEAD, Loop
from mlxstories.ladder.capture.rates import by_hand, falling, warming
from mlxstories.ladder.capture.reading import read
from mlxstories.ladder.capture.roles import Roles
from mlxstories.ladder.capture.running import STOPPED
from mlxstories.ladder.capture.seen import DROPOUT, findings
from mlxstories.ladder.capture.settings import Settings
from mlxstories.ladder.capture.tokenizer import tokenizer_of
from mlxstories.ladder.capture.told import Told
from mlxstories.ladder.capture.where import located
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.random_states import put_random_key, random_key, undisturbed
from mlxstories.ladder.subject import Subject, describe_error
from mlxstories.ladder.time_limit import TimeLimitError

_TRAINS = re.compile(r"\.update\(\s*\w+\s*,|value_and_grad")
_STEPS = 8  # updates that the script really makes while it is recorded
_BATCHES = 160  # that are recorded, if it hands out so many
_SECONDS = 10.0  # after which no more updates are made, and as long again for batches alone
_FAR, _LATE = 1200, 6.0  # gradients, and seconds of work, up to which a validation is waited for


class CapturedScript:
    """A script that was run to its training loop, and waits there for the ladder.

    Args:
        target: a file, or the name of a module where ``module`` is true.
        argv: the script's own arguments.
        steps: updates that it makes on its own first.
        batches: that are recorded at most.
        settings: NAME=VALUE for constants that the script assigns.
        cell: of a notebook, the code cell whose training is examined, counted from 1; None: the first that trains.

    Attributes:
        subject: what the ladder climbs on.
        notes: what could not be captured as it is, a line each.

    Raises:
        OwnTraining: it starts a training of this package.
        StoriesError: the script cannot be run, ends before it trains, or trains something that is no language model.
    """

    def __init__(
        self,
        target: str,
        argv: Sequence[str] = (),
        *,
        module: bool = False,
        steps: int = _STEPS,
        batches: int = _BATCHES,
        settings: Sequence[str] = (),
        cell: int | None = None,
    ):
        self.target = target
        values, key = Settings(settings), random_key()
        self.loop = Loop(target, argv, module=module, settings=values, cell=cell)
        try:
            if values.unused:
                raise StoriesError(f"assigns no {values.unused[0]}, so --set cannot replace it")
            self._read()
            self.batches = self._record(steps, batches)
            self._tell_of_cells()
            self.told = Told(self)
            self.validation, self.decoding = validation_of(self), decoding_of(self)
            for what, found in (("validation", self.validation), ("decoding", self.decoding)):
                if found is not None:
                    line = found.called.line
                    self.loop.on_note(f"its own {what} is examined too: {line.function} at {line}")
            for note in self.told.notes():
                self.loop.on_note(note)
            self.subject = self._subject()
        except StoriesError as error:
            self.close()
            raise StoriesError(f"{target}: {error}{'' if values.unused else INSTEAD}") from error
        except BaseException as error:
            self.close()
            if isinstance(error, TimeLimitError) or not isinstance(error, Exception):
                raise
            raise StoriesError(f"{target}: raised {describe_error(error)}") from error
        finally:
            put_random_key(key)

    def _tell_of_cells(self) -> None:
        """Lines of a notebook that only IPython understands, and later cells that seem to train."""
        found = cells(self.target) if is_notebook(self.target) else ()
        lines = [line for cell in found for line in cell.left_out]
        if lines:
            more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
            self.loop.on_note(f"not run, for only IPython knows it: {lines[0]}{more}")
        here = next((in_cell(*line[:2]) for line in self.loop.seen.gradient[:1]), None)
        later = [
            cell.number for cell in found if here and cell.number > here[0] and _TRAINS.search(cell.text)
        ]
        if later:
            self.loop.on_note(
                f"the training of cell {here[0]} is examined; a later one may train too: --cell {later[-1]}"
            )

    @property
    def notes(self) -> list[str]:
        return self.loop.seen.notes

    @property
    def log(self) -> str:
        """The file that holds what the script printed; once closed, it is gone where that was nothing."""
        return self.loop.log.name

    @property
    def printed(self) -> bool:
        """Whether the script has printed anything so far."""
        return self.loop.script.world.written > 0

    def explained(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with what only the script shows, and with the lines where the findings lie."""
        kept, folded = fold(
            [*findings(self), *self.told.findings(), *diagnosis.findings, *diagnosis.consequences]
        )
        return located(replace(diagnosis, findings=kept, consequences=folded), self)

    def close(self) -> None:
        """End the script and leave everything as it was found."""
        self.loop.close()

    def __enter__(self) -> CapturedScript:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The script's world, for code of its own that we call; nothing of it is recorded."""
        with self.loop.script.world:
            yield

    def _read(self) -> None:
        """Find out what is what in the first gradient."""
        try:
            with self.inside():
                self.roles = Roles(self.loop.waiting, read(self.loop.waiting))
                self._check_loss()
                with undisturbed():
                    logits_everywhere(self.loop.snapshot, mx.array(self.roles.first.inputs.astype(np.int32)))
        except StoriesError as error:
            where = [f" (the gradient at {line})" for line in self.loop.seen.gradient[-1:]]
            raise StoriesError(f"{error}{''.join(where)}") from error

    # --- recording -------------------------------------------------------------------------------

    def _record(self, steps: int, most: int) -> list[tuple[np.ndarray, ...]]:
        """Run the loop on its own batches: first as it is, then at the speed of its data."""
        loop, batches, gradients, ends = self.loop, [], 0, time.monotonic() + _SECONDS
        got = batch = None
        self.losses: list[float] = []

        def own(call):
            nonlocal got
            empty = batch is not None and not batch[2].any()
            if loop.skipping and not empty:
                return got
            moved, got = loop.moved(), call.run()
            loss = float(call.loss_of(got))
            if empty:
                loop.seen.empty.append(loss)
            if not loop.skipping:
                self.losses.append(loss)
                if batch is not None:
                    loop.taken.append(taken(batch, call.gradient_of(got), loss, moved))
            return got

        while loop.waiting is not None and (not loop.skipping or time.monotonic() < ends):
            batch = None
            if len(batches) < most:
                with self.inside():
                    batch = self.roles.take(loop.waiting)
                batches.append(batch)
            elif not (warming(self) or self._goes_on(gradients)):
                break
            done = loop.updated >= steps or len(batches) > 8 * steps or time.monotonic() > ends
            if done and not loop.skipping:
                loop.skipping, ends = True, time.monotonic() + _SECONDS
            loop.advance(own)
            gradients += 1
        if not loop.updated:
            self._run_to_an_update(got)
        loop.skipping = loop.seen.evaluations.open = False
        loop.deadline = None
        if not loop.spare and (spare := loop.came_to_nothing or loop.unused):
            loop.on_note(f"gradients that no update is made of are passed over: the first {spare}")
            loop.begin_anew(spare)
            loop.begin()
            self._read()
            return self._record(steps, most)
        if loop.waiting is None and loop.script.ended == STOPPED:
            loop.begin_again()  # a validation was cut off
        self._note_what_was_seen()
        return one_epoch(batches)

    def _run_to_an_update(self, gradient: Any) -> None:
        """Go on, at the speed of the data, to what the script learns from, if it only looked at the loss so far."""
        loop, ends = self.loop, time.process_time() + _LATE
        loop.skipping = True
        for _ in range(_FAR):
            if loop.waiting is None or loop.updated > 1 or time.process_time() > ends:
                break
            loop.advance(lambda _: gradient)

    def _note_what_was_seen(self) -> None:
        loop = self.loop
        if loop.waiting is None and loop.script.ended.startswith("exited"):
            loop.on_note(f"its loop ended after {len(self.losses)} gradients: it {loop.script.ended}")
        for line in loop.script.threads():
            loop.on_note(f"a thread that it has started goes on, and is not ended: {line.function} at {line}")
        if by_hand(self):
            updates = loop.seen.updates
            peak = max(range(len(updates)), key=lambda n: updates[n].rate or 0.0)
            loop.lead = sum(update.gradients for update in updates[:peak])
        # The gradient at which it waits may be of a validation.
        drops = any(isinstance(m, DROPOUT) for m in loop.model.modules())
        if drops and not any([update.training for update in loop.seen.updates] or [loop.model.training]):
            loop.on_note("gradients are taken in evaluation mode: dropout is off while the script trains")

    @property
    def rates(self) -> list[float]:
        """The learning rates of its updates so far."""
        return [update.rate for update in self.loop.seen.updates if update.rate is not None]

    def _goes_on(self, gradients: int) -> bool:
        """Whether there is more to see: a validation that comes every so many updates, or a rate that falls. Not at the
        price of the loop's end, and cut off where it takes too long."""
        loop, seen = self.loop, self.loop.seen
        if not (seen.seldom and not seen.evaluations.all) and not falling(self, _FAR):
            return False
        loop.deadline = loop.deadline or time.process_time() + _LATE
        near = gradients < min(_FAR, (seen.rounds or _FAR) - 2)
        return near and time.process_time() < loop.deadline

    def _check_loss(self) -> None:
        first = self.roles.first
        key = random_key()
        again = scalar(self._called(first.inputs, first.targets, first.mask))
        drawn = any(isinstance(m, DROPOUT) for m in self.loop.model.modules())
        put_random_key(key)
        if not drawn and abs(float(again) - first.value) > 1e-3 * max(1.0, abs(first.value)):
            raise StoriesError("its loss gives another value for the same batch when it is called again")
        more, half = self.roles.besides(self.loop.waiting), len(first.inputs) // 2
        if more and half:
            try:
                self._called(first.inputs[:half], first.targets[:half], first.mask[:half])
            except ValueError as error:
                raise StoriesError(
                    f"its loss takes more of each row than tokens and what counts, an array of shape {more[0]}, as of "
                    "rewards or another model's answers; such losses are not examined"
                ) from error

    def _called(self, inputs, targets, mask) -> Any:
        call = self.roles.give(self.loop.waiting, inputs, targets, mask)
        return call.function(*call.args, **call.kwargs)

    # --- the subject -----------------------------------------------------------------------------

    def _subject(self) -> Subject:
        first = self.roles.first
        masked = any((mask == 0).any() for _, _, mask in self.batches)
        batches = [batch if masked else batch[:2] for batch in self.batches]
        return Subject(
            model=lambda: clone(self.loop.snapshot),
            vocab_size=first.vocab,
            train_batches=lambda seed: begun_at(seed, batches),
            loss=self._loss,
            optimizer=self._optimizer if self.loop.first_optimizer is not None else None,
            train_step=self._step,
            val_batches=self._val_batches(masked),
            evaluate=self.validation,
            generate=self.decoding,
            tokenizer=tokenizer_of(self),
            updates=self._updates,
            name=Path(self.target).name,
        )

    def _val_batches(self, masked: bool) -> Callable[[], Iterator[tuple[np.ndarray, ...]]] | None:
        """The batches of its own validation, where they were seen; in the form of the training's."""
        seen = self.told.batches
        if not seen:
            return None
        masked = masked or not all(mask.all() for _, _, mask in seen)
        return lambda: iter([batch if masked else batch[:2] for batch in seen])

    @property
    def _updates(self) -> int | None:
        """Of the whole run: where the loop has ended already, or says how often it goes around."""
        loop, seen = self.loop, self.loop.seen
        if loop.waiting is None:
            return loop.updated or None
        if seen.rounds is None or not seen.updates:
            return None
        return max(1, seen.rounds // self.collects)

    @property
    def collects(self) -> int:
        """Gradients that an update collects, as a rule."""
        return mode(update.gradients for update in self.loop.seen.updates)

    def _loss(self, model: nn.Module, batch: Any) -> mx.array:
        if self.loop.waiting is None:
            self.loop.begin_again()
        with self.inside(), bound(self.loop.model, model):
            return scalar(self._called(*whole_batch(batch)))

    def _optimizer(self) -> Optimizer:
        optimizer = clone(self.loop.first_optimizer)
        rates = self.rates
        if rates and not optimizer._schedulers and not hasattr(optimizer, "optimizers"):
            optimizer.learning_rate = max(rates)  # set by hand, perhaps from a warmup on
        return optimizer

    def _step(self, model: nn.Module, optimizer: Optimizer, batch: Any) -> mx.array:
        parts = whole_batch(batch)
        return self.loop.step(model, optimizer, lambda call: self.roles.give(call, *parts))
