"""The policy: which sign leads to which trial, and what is changed in the recipe.

Zhang et al. 2021 (AUTOTRAINER, ICSE) watch a training and try fixed remedies one after another. Here a remedy is
chosen by short trials from the point that is returned to, on the same batches, and taken only if it clearly wins.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlxstories.findings import CATALOGUE, ERROR, Finding
from mlxstories.model import parameter_count
from mlxstories.repair.branches import TRIAL, Branches, Snapshot, final_loss
from mlxstories.repair.signs import Sign, Signs, rates, word_entropy
from mlxstories.repair.suspects import Suspect, bad_start, suspects
from mlxstories.training.config import require_alone
from mlxstories.training.evaluation import Evaluation
from mlxstories.training.experiment import new_model
from mlxstories.training.phases import Phase, override, values, with_rate
from mlxstories.training.progress import NotFinite, Progress
from mlxstories.training.trainer import Trainer

_CLEARLY = 0.98  # of the loss without the change
# When a suspicious recipe is tried: after so many updates at the full rate or that share of the run, whichever is
# first. Some constants show only later what they do.
_LOOKS = ((30, 0.1), (110, 0.4))
_SEEN_BY_WATCH = {"exploding-gradient", "learning-rate-too-large", "vanishing-gradient"}


class GaveUp(Exception):
    """The run cannot be repaired; the message says what is wrong and what was tried."""


class _Repairing(Exception):
    """Ends a training from within its report."""

    def __init__(self, remedy: _Remedy):
        super().__init__(remedy.message)
        self.remedy = remedy


@dataclass(frozen=True)
class _Remedy:
    """What a repair does: fields of the phase, new weights, microbatches (epoch, number) left out."""

    code: str
    message: str
    back_to: Snapshot
    changes: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[int, int], ...] = ()


def train_and_repair(trainer: Trainer, max_repairs: int) -> Evaluation | None:
    """As `Trainer.train`, repairing the run at most ``max_repairs`` times, those of a resumed run included.

    Every repair is a finding of the run, a line of ``metrics.jsonl`` and a part of the checkpoint that is written
    at the point returned to, so that a run killed at any moment resumes with the recipe it had.

    Raises:
        GaveUp: no repair is left, or none helps.
        StoriesError: the run directory cannot be written, or several processes train.
    """
    require_alone(trainer.group.size)
    return _Repairer(trainer, max_repairs).train()


class _Repairer:
    def __init__(self, trainer: Trainer, max_repairs: int):
        self._trainer, self._max = trainer, max_repairs
        self._report, self._warn = trainer.report, trainer.warn
        decoder = trainer.model.config.arch == "decoder"
        self._words = word_entropy(trainer.dataset.train) if decoder else None
        self._branches = Branches(trainer)
        self._ignored: set[str] = set()
        self._given = bool(trainer.run.config.keys() & {"begun", "imported"})  # its first weights
        now = Snapshot.of(trainer)
        self._start: Snapshot | None = now
        if now.moments is not None:
            # given weights are in no later checkpoint
            self._start = None if self._given else self._fresh_start()
        self._begin()
        self._looks = [look for look in _LOOKS if not self._due(look, now.progress.step)]
        if now.moments is not None and self._signs.learning:
            self._good.append(now)

    def _fresh_start(self) -> Snapshot:
        """Step 0 with the weights that the seed draws."""
        model = new_model(self._trainer.model.config, self._trainer.config.seed)
        return Snapshot(Progress(), model.parameters(), None)

    def _begin(self) -> None:
        """Look at the curves anew, from where they stand."""
        trainer = self._trainer
        guess = math.log(trainer.model.config.vocab_size)
        self._signs = Signs(rates(trainer.learning_rate, trainer.total_steps), guess, self._words)
        self._good: collections.deque[Snapshot] = collections.deque(maxlen=2)
        for record in trainer.run.metrics():
            self._signs(record)

    def train(self) -> Evaluation | None:
        trainer = self._trainer
        trainer.report, trainer.warn = self._on_record, self._on_finding
        try:
            while True:
                try:
                    return trainer.train()
                except _Repairing as repairing:
                    remedy = repairing.remedy
                except NotFinite as error:
                    remedy = self._after(error)
                self._repair(remedy)
        finally:
            trainer.report, trainer.warn = self._report, self._warn

    def _after(self, error: NotFinite) -> _Remedy:
        message = str(error).rstrip(".")
        remedy = self._remedy(Sign("not-finite", message))
        if remedy is None:
            raise GaveUp(f"{message}, and no repair helps.") from error
        return remedy

    def _on_record(self, record: dict) -> None:
        self._report(record)
        sign = self._signs(record)
        if record["split"] != "train":
            return
        if sign is not None:
            self._consider_once(sign)
        if self._looks and self._due(self._looks[0], record["step"]):
            self._looks.pop(0)
            self._consider(Sign("recipe", "the recipe"))
        if self._signs.learning and self._signs.at_best:
            self._good.append(Snapshot.of(self._trainer))

    def _on_finding(self, finding: Finding) -> None:
        self._warn(finding)
        if finding.code in _SEEN_BY_WATCH:
            self._consider_once(Sign(finding.code, finding.message))

    def _due(self, look: tuple[float, float], step: int) -> bool:
        awake, share = look
        return step >= TRIAL and (
            self._signs.awake(step) >= awake or step >= share * self._trainer.total_steps
        )

    def _consider_once(self, sign: Sign) -> None:
        if sign.kind not in self._ignored:
            self._ignored.add(sign.kind)
            self._consider(sign)

    def _consider(self, sign: Sign) -> None:
        """Stop the training if there is a remedy."""
        if self._trainer.progress.step < self._trainer.total_steps:
            remedy = self._remedy(sign)
            if remedy is not None:
                raise _Repairing(remedy)

    def _cure(self, phase: Phase) -> tuple[list[Suspect], dict[str, Any], Snapshot | None]:
        """What is suspicious, the changes of the phase that set it right, and the start to go with them, if there is
        one."""
        norms = [r["grad_norm"] for r in self._trainer.run.metrics() if r["split"] == "train"]
        size = parameter_count(self._trainer.model)
        found = suspects(phase, self._trainer.total_steps, norms[0] if norms else None, size)
        changes = {path: value for suspect in found for path, value in suspect.changes.items()}
        if self._given or self._start is None:
            return found, changes, self._start
        fresh = self._fresh_start()
        bad = bad_start(self._start.weights, fresh.weights)
        return ([bad, *found], changes, fresh) if bad else (found, changes, self._start)

    def _remedy(self, sign: Sign) -> _Remedy | None:
        trainer, spent = self._trainer, self._branches.spent
        with self._branches.trials():
            remedy = self._search(sign, trainer.phase, trainer.progress.step)
        trainer.progress.extra_updates += self._branches.spent - spent
        return remedy

    def _search(self, sign: Sign, phase: Phase, step: int) -> _Remedy | None:
        good = self._good[0] if self._good else self._start
        if good is None:
            return None
        if sign.kind == "not-finite":
            spoilt = self._branches.spoilt_batches(good, phase, step)
            if spoilt:
                message = f"{sign.message}: {len(spoilt)} microbatches give no finite gradient"
                return _Remedy("not-finite", message, good, skipped=tuple(spoilt))
        if sign.kind == "recipe":
            return self._recipe(sign, phase, step)
        if good is self._start or sign.kind == "stuck":
            return self._recipe(sign, phase, TRIAL) or self._rate(sign, phase)
        return self._calmer(sign, phase, good, step)

    def _recipe(self, sign: Sign, phase: Phase, updates: int) -> _Remedy | None:
        """From the start with the suspects set right, if that clearly wins over what the run has done so far."""
        found, changes, cured = self._cure(phase)
        if not found or cured is None:
            return None
        without, with_it = self._beside(sign, self._branches.losses(cured, override(phase, changes), updates))
        if not with_it < _CLEARLY * without:
            return None
        said = "; ".join(suspect.message for suspect in found)
        message = f"{said}: the loss is {without:.2f}, and {with_it:.2f} in a trial with another value"
        return _Remedy(found[0].code, message, cured, changes)

    def _beside(self, sign: Sign, trial: np.ndarray) -> tuple[float, float]:
        """The run's loss and that of a trial from the start; of an exploded run, its end counts."""
        if sign.kind == "not-finite" or not self._signs.steps:
            return math.inf, final_loss(trial)
        if sign.kind == "exploded":
            return self._signs.losses[-1], final_loss(trial)
        return self._signs.beside(trial)

    def _rate(self, sign: Sign, phase: Phase) -> _Remedy | None:
        """From the start with the best rate for all that is suspicious set right."""
        _, changes, start = self._cure(phase)
        if start is None:
            return None
        if phase.clip_norm is None:
            changes["clip_norm"] = 1.0
        base = override(phase, changes)
        rate, trial = self._branches.best_rate(start, base)
        without, with_it = self._beside(sign, trial)
        if not with_it < _CLEARLY * without:
            return None
        large = rate < phase.optimizer.learning_rate
        code = "learning-rate-too-large" if large else "learning-rate-too-small"
        return _Remedy(_code(sign, code), sign.message, start, changes | with_rate(base, rate))

    def _calmer(self, sign: Sign, phase: Phase, good: Snapshot, step: int) -> _Remedy | None:
        """From the last good point with the gradient clipped, or at a lower rate; if nothing is finite, from the
        start."""
        length = max(TRIAL, step - good.progress.step + 10)
        clip = {} if phase.clip_norm is not None and phase.clip_norm <= 1 else {"clip_norm": 1.0}
        rate = phase.optimizer.learning_rate
        trials = [
            {},
            *([clip] if clip else []),
            *(clip | with_rate(phase, rate * share) for share in (0.3, 0.1)),
        ]
        losses = [
            final_loss(self._branches.losses(good, override(phase, changes), length)) for changes in trials
        ]
        best = min(range(len(trials)), key=losses.__getitem__)
        if not math.isfinite(losses[best]):
            return self._rate(sign, phase)
        if not losses[best] < _CLEARLY * losses[0]:
            return None
        code = "exploding-gradient" if trials[best] == clip else "learning-rate-too-large"
        return _Remedy(_code(sign, code), sign.message, good, trials[best])

    def _repair(self, remedy: _Remedy) -> None:
        trainer, phase = self._trainer, self._trainer.phase
        seen_at, back = trainer.progress.step, remedy.back_to.progress
        if len(trainer.repairs) == self._max:
            raise GaveUp(f"{remedy.message}, after {self._max} repair{'s' * (self._max > 1)}.")
        changes = {path: [values(phase)[path], new] for path, new in remedy.changes.items()}
        remedy.back_to.apply(trainer, override(phase, remedy.changes))
        now = trainer.progress
        trainer.progress = dataclasses.replace(
            copy.deepcopy(back), seconds=now.seconds, extra_updates=now.extra_updates + seen_at - back.step
        )
        repair = {"code": remedy.code, "message": remedy.message, "seen_at": seen_at, "changes": changes}
        trainer.go_back(repair | {"skipped": [list(place) for place in remedy.skipped]})
        self._ignored = set()
        self._begin()
        if back.step == 0:
            self._start = remedy.back_to
        else:
            self._good.append(remedy.back_to)
        done = [f"{path} {_short(old)} → {_short(new)}" for path, (old, new) in changes.items()]
        if remedy.skipped:
            done = [f"{len(remedy.skipped)} microbatches left out"]
        finding = Finding(
            remedy.code,
            ERROR,
            "training",
            f"at step {seen_at} {remedy.message}",
            {"step": back.step, "seen_at": seen_at, "changes": changes},
            f"repaired from step {back.step} on: {', '.join(done) or 'weights drawn anew'}",
        )
        trainer.run.add_findings([finding])
        self._warn(finding)


def _code(sign: Sign, otherwise: str) -> str:
    return sign.kind if sign.kind in CATALOGUE else otherwise


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
