"""`mlxstories debug --deep`: the exchange after the climb, and what it adds to the diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mlxstories.findings import ERROR, Finding, Place, accepted, cause_of, fold
from mlxstories.findings.finding import SEVERITIES
from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.diagnosis import Diagnosis, Line, Rung
from mlxstories.ladder.exchange.drafts import said
from mlxstories.ladder.exchange.exchange import Exchange, gap
from mlxstories.ladder.exchange.judging import judge, known
from mlxstories.ladder.exchange.material import held_out, material
from mlxstories.ladder.exchange.table import table
from mlxstories.ladder.exchange.training import POINTS, Clock, OutOfTime
from mlxstories.ladder.subject import Subject
from mlxstories.ladder.time_limit import TimeLimitError
from mlxstories.ladder.verdict import FAILED, PASSED, SKIPPED, Draft

RUNG = "exchange"
_MEANINGLESS = ("subject-error", "token-out-of-range")
_UNTRAINED = {"evaluation", "generation"}  # parts that no training depends on
_TRAININGS = 3.5  # that a sound setup takes, in whole ones
_TIMED = 3  # updates
MOST = 5  # times what a sound setup takes, where changes are raced inside a part


def deepened(
    diagnosis: Diagnosis,
    subject: Subject,
    *,
    seed: int = 0,
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """A diagnosis with what the exchange of the subject's parts adds; what the climb accepted stays accepted.

    Args:
        seed: of everything drawn.
        seconds: after which it says what is known so far; Ctrl-C does the same.
        tell: called with the name of each training that begins.
    """
    rung, begun = Rung(RUNG), time.perf_counter()
    first = next((f.code for f in diagnosis.findings if f.severity == ERROR and f.code in _MEANINGLESS), None)
    if first is not None:
        rung.checks.append(Line("the parts exchanged", SKIPPED, f"meaningless after {first}"))
        return replace(diagnosis, rungs=[*diagnosis.rungs, rung])
    bench = Bench(subject, seed)
    exchange = Exchange(bench, Clock(seconds), tell)
    with bench.protected():
        drafts, ended = _found(exchange)
    findings = [
        accepted(
            Finding(d.code, d.severity, RUNG, d.message, d.evidence, d.fix, _placed(d.where)),
            diagnosis.accept,
        )
        for d in drafts
    ]
    kept, folded = _ordered(exchange, [*diagnosis.findings, *diagnosis.consequences], findings)
    rung.seconds = time.perf_counter() - begun
    failed = any(f.severity == ERROR for f in findings)
    rung.status = FAILED if failed else PASSED if exchange.runs else SKIPPED
    losses = ", ".join(f"{name} {run.loss:.3f}" for name, run in exchange.runs.items())
    rung.checks.append(Line("the parts exchanged", rung.status, "; ".join(p for p in (losses, ended) if p)))
    if not ended:
        with bench.protected(), suppress(TimeLimitError):
            rung.checks += table(exchange, {_part(f) for f in kept if f.severity == ERROR})
    rung.figures["exchange"] = {name: run.curve for name, run in exchange.runs.items() if run.curve}
    for finding in findings:
        rung.figures["exchange"] |= finding.evidence["curves"]
    return replace(
        diagnosis,
        findings=kept,
        consequences=folded,
        rungs=[*diagnosis.rungs, rung],
        seconds=diagnosis.seconds + rung.seconds,
    )


def _placed(where):
    """A site as a line of the user's code, or in words where no line is known."""
    if not (where and "file" in where):
        return where and str(where)
    return Place.at(**where)


def _ordered(
    exchange: Exchange, climbed: list[Finding], found: list[Finding]
) -> tuple[list[Finding], list[Finding]]:
    """What remains of both sets of findings, errors with their proof, and what is folded."""
    outdone = _outdone(exchange, climbed, found)
    kept, folded = _together([f for f in climbed if f not in outdone], found)
    kept = [_proved(exchange, f, folded) if f.severity == ERROR else f for f in kept]
    return _under_the_first(kept, outdone), [*folded, *outdone]


def _outdone(exchange: Exchange, climbed: list[Finding], found: list[Finding]) -> list[Finding]:
    """Errors of the climb that accuse the size of the updates by how training goes, where a plain step does not help
    and the exchange of another part does: with another loss or model another rate is the right one."""
    proven = {_part(f) for f in found if f.severity == ERROR}
    between = exchange.gap_of("step")
    if not proven or "step" in proven or (between is not None and between.low > 0):
        return []
    return [f for f in climbed if f.severity == ERROR and cause_of(f.code).stage == "rate"]


def _under_the_first(kept: list[Finding], outdone: list[Finding]) -> list[Finding]:
    if not outdone:
        return kept
    codes = {*kept[0].evidence.get("consequences", []), *(f.code for f in outdone)}
    return [replace(kept[0], evidence={**kept[0].evidence, "consequences": sorted(codes)}), *kept[1:]]


def _together(climbed: list[Finding], found: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """What remains of both sets of findings, and what is folded.

    An error of the climb explains a gap that the exchange found where it lies in the same part, or in one that training
    depends on; any other gap stands beside it.
    """
    accused = {_part(f) if _trained(f) else cause_of(f.code).part for f in climbed if f.severity == ERROR}
    beside = [f for f in found if accused and not (accused - _UNTRAINED or _part(f) in accused)]
    kept, folded = fold([*climbed, *(f for f in found if f not in beside)])
    return sorted([*kept, *beside], key=lambda f: SEVERITIES.index(f.severity)), folded


def _proved(exchange: Exchange, finding: Finding, folded: list[Finding]) -> Finding:
    """An error of the climb, with what exchanging the part that it accuses, or a change inside that part, achieves."""
    if finding.rung == RUNG:
        return finding
    if not _trained(finding):
        return replace(finding, evidence={**finding.evidence, "part": _part(finding)})
    part = cause_of(finding.code).part
    evidence = {**finding.evidence, "part": part}
    own = next((f for f in folded if f.rung == RUNG and _part(f) == part), None)
    if own is not None:
        told = f"{finding.message}. {own.message[:1].upper()}{own.message[1:]}"
        return replace(finding, message=told, evidence={**own.evidence, **evidence})
    made = exchange.of_part(part)
    if made is None:
        return replace(finding, evidence=evidence)
    before, after = made
    brought = gap(before, after).low > 0
    if part == "data":
        plain, brings = after.name.capitalize(), "leave" if brought else "bring nothing:"
    else:
        plain, brings = f"A plain {part}", "leaves" if brought else "brings nothing:"
    told = (
        f"{finding.message}. {plain} {brings} a held-out loss of {after.loss:.3f} instead of {said(before)} "
        f"after {after.updates} updates on the same batches"
    )
    evidence |= {"curves": {run.name: run.curve for run in made}}
    return replace(finding, message=told, evidence=evidence)


def _trained(finding: Finding) -> bool:
    """Whether training depends on what a finding is of: on a model's cache, say, it does not."""
    return cause_of(finding.code).part not in _UNTRAINED


def _part(finding: Finding) -> str:
    return finding.evidence.get("part") or cause_of(finding.code).part


def _found(exchange: Exchange) -> tuple[list[Draft], str]:
    """What the exchange found, and why it ended early, if it did."""
    try:
        exchange.go()
        return judge(exchange), ""
    except KeyboardInterrupt:
        return known(exchange), "interrupted"
    except (OutOfTime, TimeLimitError):
        return known(exchange), "out of time"
    except SubjectFault as fault:
        return known(exchange), fault.draft.message


def estimate(subject: Subject, seed: int = 0) -> float:
    """About how many seconds the exchange takes for a sound subject, from a few of its own updates and a measurement;
    with a part that is behind, it takes up to ``MOST`` times as long."""
    bench = Bench(subject, seed)
    with bench.protected():
        found = material(bench)
        model, optimizer = bench.model(), bench.optimizer()
        bench.step(model, optimizer, found.batches[0])
        begun = time.perf_counter()
        for batch in found.batches[1 : 1 + _TIMED]:
            bench.step(model, optimizer, batch)
        step = (time.perf_counter() - begun) / _TIMED
        begun = time.perf_counter()
        held_out(bench, model)
        measured = time.perf_counter() - begun
    return _TRAININGS * (found.updates * step + (POINTS + 1) * measured)
