"""Climb the ladder: rung after rung, check after check, then causes before consequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.findings import ERROR, WARNING, Finding, acceptable, accepted, fold
from mlxstories.ladder import checks  # noqa: F401  (registers them)
from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.subject_fault import out_of_time
from mlxstories.ladder.diagnosis import Diagnosis, Line, Rung
from mlxstories.ladder.limits import Gauge, Gauges
from mlxstories.ladder.registry import ANY, RUNGS, Check, checks_of
from mlxstories.ladder.subject import Subject
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.ladder.verdict import FAILED, PASSED, SKIPPED, Draft
from mlxstories.ladder.where import located

_BUILDS_ON = {"sweep": ("data", "minimal"), "short": ("data", "minimal"), "trained": ("minimal",)}
# After these nothing further up means anything; no update, told before any step, is a model with nothing to train.
_FATAL = ("subject-error", "token-out-of-range")
_FATAL_AT_INIT = ("no-update",)
_QUICK_TOKENS = 64

Events = Callable[[str, Any], None]


def diagnose(
    subject: Subject,
    *,
    seed: int = 0,
    budget_seconds: float | None = None,
    rungs: Iterable[str] | None = None,
    stories: int = 4,
    accept: Iterable[str] = (),
    on_event: Events | None = None,
) -> Diagnosis:
    """Examine a subject rung by rung and name the cause of what is wrong.

    Args:
        seed: of everything drawn.
        budget_seconds: no further rung is begun after so many seconds.
        rungs: names of the rungs to climb, all by default; those that they build on are climbed with them.
        stories: rows that the minimal rung memorises.
        accept: codes of errors that are known and may stay: they are warnings here, and the climb goes on behind them.
        on_event: called with ("rung", Rung) when one begins and ("done", Rung) when it ends, ("check", Line)
            and ("finding", Finding) as they come.

    Raises:
        StoriesError: an unknown rung, or a code that cannot be accepted.
    """
    wanted = list(RUNGS) if rungs is None else list(rungs)
    for name in wanted:
        if name not in RUNGS:
            raise StoriesError(f"unknown rung {name!r}: choose from {', '.join(RUNGS)}")
    needed = {base for name in wanted for base in (name, *_BUILDS_ON.get(name, ()))}
    bench = Bench(subject, seed, stories=stories)
    climb = _Climb(bench, on_event or (lambda kind, value: None), acceptable(accept))
    return climb.through({name: checks_of(name) for name in RUNGS if name in needed}, budget_seconds)


def check_before_training(subject: Subject, *, seed: int = 0) -> Diagnosis:
    """The cheap checks of the first two rungs, about a second: data, ids, first loss, leaks."""
    bench = Bench(subject, seed, width=_QUICK_TOKENS)
    climb = _Climb(bench, lambda kind, value: None)
    return climb.through({name: checks_of(name, quick=True) for name in ("data", "init")}, None)


def assert_healthy(
    subject: Subject,
    *,
    seed: int = 0,
    rungs: Iterable[str] | None = None,
    accept: Iterable[str] = (),
) -> Diagnosis:
    """For test suites: `diagnose`, and raise an AssertionError that lists the error findings, if any."""
    __tracebackhide__ = True  # pytest shows the test's line, and the findings below it
    diagnosis = diagnose(subject, seed=seed, rungs=rungs, accept=accept)
    errors = [f for f in diagnosis.findings if f.severity == ERROR]
    if errors:
        lines = [
            f"{f.code}{f' at {f.where}' if f.where else ''}: {f.message}\n  Fix: {f.fix}" for f in errors
        ]
        raise AssertionError(f"{subject.name} is not healthy:\n" + "\n".join(lines))
    return diagnosis


@dataclass
class _Climb:
    """One climb: the bench, what was found so far, and who hears of it."""

    bench: Bench
    tell: Events
    accept: frozenset[str] = frozenset()
    findings: list[Finding] = field(default_factory=list)
    gauges: dict[tuple[str, str], Gauge] = field(default_factory=dict)
    out_of_time: bool = False

    def through(self, rungs: dict[str, list[Check]], budget: float | None) -> Diagnosis:
        climbed: list[Rung] = []
        begun = time.perf_counter()
        with self.bench.protected():
            for name, asked in rungs.items():
                rung = Rung(name)
                climbed.append(rung)
                self.tell("rung", rung)
                spent = time.perf_counter() - begun
                if budget is not None and spent > budget:
                    rung.checks.append(Line(name, SKIPPED, f"the budget of {budget:g} s is spent"))
                elif self.out_of_time:
                    rung.checks.append(Line(name, SKIPPED, "the time limit is up"))
                elif fatal := self.fatal:
                    rung.checks.append(Line(name, SKIPPED, f"meaningless after {fatal}"))
                else:
                    self.ask_all(asked, rung)
                self.tell("done", rung)
            findings, consequences = fold(self.findings)
            findings = [located(self.bench, finding) for finding in findings]
        seconds = time.perf_counter() - begun
        name = self.bench.subject.name
        return Diagnosis(name, findings, climbed, seconds, consequences, self.gauges, self.accept)

    @property
    def fatal(self) -> str | None:
        """The code of an error after which nothing further up means anything."""
        errors = (f for f in self.findings if f.severity == ERROR)
        return next(
            (f.code for f in errors if f.code in _FATAL or (f.rung == "init" and f.code in _FATAL_AT_INIT)),
            None,
        )

    @property
    def errors(self) -> list[str]:
        """Codes of the errors found so far, in the order of finding."""
        return [f.code for f in self.findings if f.severity == ERROR]

    def ask_all(self, asked: list[Check], rung: Rung) -> None:
        """Ask the checks of a rung one after the other; the subject's own failure ends it."""
        begun, before = time.perf_counter(), len(self.errors)
        try:
            for check in asked:
                self.ask(check, rung)
        except SubjectFault as fault:
            self.fails(fault.draft, rung, isinstance(fault.__cause__, TimeLimitError))
        except TimeLimitError as error:
            self.fails(out_of_time(error).draft, rung, True)
        except SystemExit as end:  # in a call whose exceptions a measurement takes for an answer
            draft = self.bench.fault(f"it called sys.exit({end.code!r})", "raise an error").draft
            self.fails(draft, rung, False)
        rung.seconds = time.perf_counter() - begun
        only_skipped = bool(rung.checks) and all(line.status == SKIPPED for line in rung.checks)
        # No tick over a failed check.
        bad = len(self.errors) > before or any(line.status == FAILED for line in rung.checks)
        rung.status = FAILED if bad else SKIPPED if only_skipped else PASSED

    def ask(self, check: Check, rung: Rung) -> None:
        """Ask one check, or skip it and say why."""
        if reason := self.obstacle(check):
            self.line(rung, Line(check.name, SKIPPED, reason))
            return
        gauges = check.gauges()
        verdict = check.ask(self.bench, gauges)
        self.gauges |= {(check.name, name): gauge for name, gauge in gauges.read().items()}
        rung.figures |= verdict.figures
        codes = tuple(draft.code for draft in verdict.drafts)
        self.line(rung, Line(check.name, verdict.status, verdict.detail, codes))
        for draft in verdict.drafts:
            self.found(draft, rung, gauges)

    def obstacle(self, check: Check) -> str:
        """Why a check cannot be asked: a field is missing, or an error found before makes its answer meaningless."""
        missing = [field for field in check.needs if getattr(self.bench.subject, field) is None]
        if missing:
            return f"no {' and no '.join(missing)} given"
        # what an error makes meaningless stays so where it is accepted; what it only postpones is asked
        known = [f.code for f in self.findings if f.evidence.get("accepted")]
        before = self.errors if check.unless == ANY else [*self.errors, *known]
        first = next((code for code in before if check.unless == ANY or code in check.unless), None)
        return f"{first} comes first" if first else ""

    def fails(self, draft: Draft, rung: Rung, out_of_time: bool) -> None:
        """The subject fails; a cause that was found before is not a consequence of the clock."""
        self.out_of_time = out_of_time
        if out_of_time and self.errors:
            draft = replace(draft, severity=WARNING)
        self.line(rung, Line("the subject runs", FAILED, draft.message, (draft.code,)))
        self.found(draft, rung, None)

    def line(self, rung: Rung, line: Line) -> None:
        rung.checks.append(line)
        self.tell("check", line)

    def found(self, draft: Draft, rung: Rung, gauges: Gauges | None) -> None:
        evidence = {key: _plain(value) for key, value in draft.evidence.items()}
        if limits := {name: gauge.value for name, gauge in gauges.read().items()} if gauges else {}:
            evidence["limits"] = limits
        finding = Finding(
            draft.code, draft.severity, rung.name, draft.message, evidence, draft.fix, draft.where
        )
        finding = accepted(finding, self.accept)
        self.findings.append(finding)
        self.bench.brief |= finding.severity == ERROR
        self.tell("finding", finding)


def _plain(value):
    """Evidence as JSON knows it, floats to five digits."""
    if isinstance(value, (mx.array, np.generic)):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
