"""TRANSITIONAL: rungs that are not checks yet, on the bench of those that are. Goes when the last one is."""

from __future__ import annotations

from typing import Any

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.bench import Bench, SubjectFault, material, trial  # noqa: F401
from mlxstories.ladder.bench.arrays import masked_mean, put, token_losses  # noqa: F401
from mlxstories.ladder.bench.material import Epoch  # noqa: F401
from mlxstories.ladder.bench.trial import Trial as Run  # noqa: F401
from mlxstories.ladder.diagnosis import Line, Rung
from mlxstories.ladder.verdict import Draft


class Examination(Bench):
    def __init__(self, subject, seed=0, **options):
        super().__init__(subject, seed, **options)
        self.facts: dict[str, Any] = {}
        self.climb = None
        self.rung = Rung("data")

    @property
    def findings(self) -> list[Finding]:
        return self.climb.findings

    def found(self, code, severity, message, *, fix="", where=None, **evidence):
        self.climb.found(Draft(code, severity, message, fix, where, evidence), self.rung, None)

    def check(self, name, passed, detail=""):
        status = "skipped" if passed is None else "passed" if passed else "failed"
        self.climb.line(self.rung, Line(name, status, detail))

    def has(self, *codes):
        return any(f.severity == ERROR and (not codes or f.code in codes) for f in self.findings)

    @property
    def cause(self):
        return next((f.code for f in self.findings if f.severity == ERROR), "")

    def read(self, what, batches):
        return material.read(self, what, batches)

    train = property(material.train_epoch)
    val = property(material.val_epoch)
    minimal = property(material.minimal_batch)
    sample = property(material.sample)

    def pool(self, count, epoch=None):
        return material.pool(epoch or self.train, count)

    def probe_batch(self, index):
        return material.probe_batch(self, index)

    def run(self, batches, steps, **options):
        return trial.train(self, batches, steps, **options)

    def score(self, model, batch):
        return trial.score(self, model, batch)
