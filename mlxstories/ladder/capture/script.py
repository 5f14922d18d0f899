"""An unmodified script, run to its training loop and held there: what it trains, as a subject for the ladder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mode
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.findings import Finding, fold
from mlxstories.findings.notebooks import cells, in_cell, is_notebook
from mlxstories.ladder.capture.as_subject import subject_of
from mlxstories.ladder.capture.copies import scalar
from mlxstories.ladder.capture.last_position import logits_everywhere
from mlxstories.ladder.capture.loop import INSTEAD, Loop
from mlxstories.ladder.capture.reading import read
from mlxstories.ladder.capture.recording import record
from mlxstories.ladder.capture.replay import decoding_of, validation_of
from mlxstories.ladder.capture.roles import Roles
from mlxstories.ladder.capture.script_findings import DROPOUT, failures, findings
from mlxstories.ladder.capture.settings import Settings
from mlxstories.ladder.capture.validation_log import ValidationLog
from mlxstories.ladder.capture.where import located
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.random_states import put_random_key, random_key, undisturbed
from mlxstories.ladder.subject import describe_error
from mlxstories.ladder.time_limit import TimeLimitError

_TRAINS = re.compile(r"\.update\(\s*\w+\s*,|value_and_grad")
_STEPS = 8  # updates that the script really makes while it is recorded
_BATCHES = 160  # that are recorded, if it hands out so many


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
        losses: of the gradients that it took by itself while it was recorded.
        batches: those it was recorded with: (inputs, targets, mask), [B, T] each.

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
            self.read()
            self.losses: list[float] = []
            self.batches = record(self, steps, batches)
            self._tell_of_cells()
            self.validation_log = ValidationLog(self)
            self.validation, self.decoding = validation_of(self), decoding_of(self)
            for what, found in (("validation", self.validation), ("decoding", self.decoding)):
                if found is not None:
                    line = found.called.line
                    self.loop.on_note(f"its own {what} is examined too: {line.function} at {line}")
            for note in self.validation_log.notes():
                self.loop.on_note(note)
            self.subject = subject_of(self)
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
        """Notes on lines of a notebook that only IPython understands, and on later cells that seem to train."""
        found = cells(self.target) if is_notebook(self.target) else ()
        lines = [line for cell in found for line in cell.left_out]
        if lines:
            more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
            self.loop.on_note(f"not run, since only IPython understands it: {lines[0]}{more}")
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

    @property
    def rates(self) -> list[float]:
        """The learning rates of its updates so far."""
        return [update.rate for update in self.loop.seen.updates if update.rate is not None]

    @property
    def collects(self) -> int:
        """Gradients that an update collects, as a rule."""
        return mode(update.gradients for update in self.loop.seen.updates)

    @property
    def findings(self) -> list[Finding]:
        """What only the script shows, before any climb."""
        return [*findings(self), *self.validation_log.findings()]

    def explained(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with what only the script shows, and with the lines where the findings lie."""
        climbed = [*diagnosis.findings, *diagnosis.consequences]
        kept, folded = fold([*self.findings, *climbed, *failures(self)])
        return self.located(replace(diagnosis, findings=kept, consequences=folded))

    def located(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with the lines of the script where its findings lie."""
        return located(diagnosis, self)

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

    def read(self) -> None:
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

    def _check_loss(self) -> None:
        first = self.roles.first
        key = random_key()
        again = scalar(self.loss_on(first.inputs, first.targets, first.mask))
        drawn = any(isinstance(m, DROPOUT) for m in self.loop.model.modules())
        put_random_key(key)
        if not drawn and abs(float(again) - first.value) > 1e-3 * max(1.0, abs(first.value)):
            raise StoriesError("its loss gives another value for the same batch when it is called again")
        more, half = self.roles.besides(self.loop.waiting), len(first.inputs) // 2
        if more and half:
            try:
                self.loss_on(first.inputs[:half], first.targets[:half], first.mask[:half])
            except ValueError as error:
                raise StoriesError(
                    f"its loss takes more of each row than tokens and what counts, an array of shape {more[0]}, as of "
                    "rewards or another model's answers; such losses are not examined"
                ) from error

    def loss_on(self, inputs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> Any:
        """What the script's own loss returns for a batch, [B, T] each, in the place of its own."""
        call = self.roles.give(self.loop.waiting, inputs, targets, mask)
        return call.function(*call.args, **call.kwargs)
