"""Climb the ladder: rung after rung, then causes before consequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.ladder import rung_data, rung_init, rung_minimal, rung_short, rung_sweep, rung_trained
from mlxstories.ladder.examination import Examination, SubjectFault
from mlxstories.ladder.finding import ERROR, Check, Diagnosis, Rung, fold
from mlxstories.ladder.limits import TimeLimitError
from mlxstories.ladder.subject import Subject

RUNGS: dict[str, Callable[[Examination], None]] = {
    "data": rung_data.climb,
    "init": rung_init.climb,
    "minimal": rung_minimal.climb,
    "sweep": rung_sweep.climb,
    "short": rung_short.climb,
    "trained": rung_trained.climb,
}
_BUILDS_ON = {"sweep": ("data", "minimal"), "short": ("data", "minimal"), "trained": ("minimal",)}
# After these nothing further up means anything.
_FATAL = ("subject-error", "token-out-of-range")


def diagnose(
    subject: Subject,
    *,
    seed: int = 0,
    budget_seconds: float | None = None,
    rungs: Iterable[str] | None = None,
    stories: int = 4,
    on_event: Callable[[str, Any], None] | None = None,
) -> Diagnosis:
    """Examine a subject rung by rung and name the cause of what is wrong.

    Args:
        seed: of everything drawn.
        budget_seconds: no further rung is begun after so many seconds.
        rungs: names of the rungs to climb, all by default; those that they build on are climbed with them.
        stories: rows that the minimal rung memorises.
        on_event: called with ("rung", Rung) when one begins and ("done", Rung) when it ends, ("check", Check)
            and ("finding", Finding) as they come.

    Raises:
        StoriesError: an unknown rung.
    """
    wanted = list(RUNGS) if rungs is None else list(rungs)
    for name in wanted:
        if name not in RUNGS:
            raise StoriesError(f"unknown rung {name!r}: choose from {', '.join(RUNGS)}")
    needed = {base for name in wanted for base in (name, *_BUILDS_ON.get(name, ()))}
    exam = Examination(subject, seed, on_event, stories)
    return _climb(exam, [(name, RUNGS[name]) for name in RUNGS if name in needed], budget_seconds, on_event)


def check_before_training(subject: Subject, *, seed: int = 0) -> Diagnosis:
    """The cheap checks of the first two rungs, about a second: data, ids, first loss, leaks."""
    rungs = [("data", rung_data.climb), ("init", lambda exam: rung_init.climb(exam, quick=True))]
    return _climb(Examination(subject, seed), rungs, None, None)


def assert_healthy(subject: Subject, *, seed: int = 0, rungs: Iterable[str] | None = None) -> Diagnosis:
    """For test suites: diagnose and raise an AssertionError that lists the error findings, if any."""
    diagnosis = diagnose(subject, seed=seed, rungs=rungs)
    errors = [f for f in diagnosis.findings if f.severity == ERROR]
    if errors:
        lines = [f"{f.code}: {f.message}; {f.fix}" for f in errors]
        raise AssertionError(f"{subject.name} is not healthy:\n" + "\n".join(lines))
    return diagnosis


def _climb(exam: Examination, rungs, budget: float | None, on_event) -> Diagnosis:
    tell = on_event or (lambda kind, value: None)
    climbed: list[Rung] = []
    start, stopped = time.perf_counter(), None
    with exam.protected():
        for name, climb in rungs:
            exam.rung = rung = Rung(name)
            climbed.append(rung)
            tell("rung", rung)
            begun = time.perf_counter()
            if budget is not None and begun - start > budget:
                stopped = stopped or f"the budget of {budget:g} s is spent"
            if stopped:
                rung.checks.append(Check(name, "skipped", stopped))
                tell("done", rung)
                continue
            before = len(exam.findings)
            try:
                climb(exam)
            except (SubjectFault, TimeLimitError) as error:
                fault = (
                    error
                    if isinstance(error, SubjectFault)
                    else exam.fault(
                        f"the climb is {error}", "raise the time limit, or make steps and batches smaller"
                    )
                )
                exam.findings.append(fault.finding)
                rung.checks.append(Check("the subject runs", "failed", fault.finding.message))
                tell("finding", fault.finding)
            rung.seconds = time.perf_counter() - begun
            failed = any(f.severity == ERROR for f in exam.findings[before:])
            skipped = bool(rung.checks) and all(c.status == "skipped" for c in rung.checks)
            rung.status = "failed" if failed else "skipped" if skipped else "passed"
            tell("done", rung)
            fatal = next((f for f in exam.findings if f.severity == ERROR and f.code in _FATAL), None)
            if fatal is not None:
                stopped = f"meaningless after {fatal.code}"
    findings, consequences = fold(exam.findings)
    return Diagnosis(exam.subject.name, findings, climbed, time.perf_counter() - start, consequences)
