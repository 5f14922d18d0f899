"""One trial of a setup, to be run in a process of its own: train it shortly, judge that, and climb if it matters."""

from __future__ import annotations

import itertools
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx

from mlxstories.errors import StoriesError
from mlxstories.findings import cause_of
from mlxstories.ladder import Subject, diagnose, load_subject
from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.batches import UnusableBatch
from mlxstories.ladder.bench.epochs import val_epoch
from mlxstories.ladder.capture import CapturedScript
from mlxstories.ladder.exchange.material import material
from mutating.lines import Lines
from mutating.setups import Workplace
from mutating.training import AnotherSetup, Measured, Reference, measure, validated_rows

HURTS, EQUIVALENT, SLIGHT, BETTER = "hurts", "equivalent", "slight", "better"
UNCHANGED, ANOTHER, FAILS = "unchanged", "another setup", "does not run"
HARM = 0.03  # of the held-out loss, or of a reported figure
_ENDLESS = 3  # times what the original takes, after which a training is ended
SAME = 0.01  # of the held-out loss: within it a mutant is equivalent, or within what another seed moves


def original(workplace: Workplace, updates: int, keep: Path, whole: bool) -> dict:
    """Train the original, keep what mutants are held against, and tell which parts run each line, and what the ladder
    finds.

    Args:
        whole: as in `Reference`.
    """
    lines = Lines([str(file) for file in workplace.files])
    with lines.followed(), loaded(workplace) as (subject, explained):
        bench = Bench(lines.by_part(subject))
        held, val = material(bench).held, val_epoch(bench)
        kept = Reference(held.with_(form=()), None if val is None else validated_rows(val))
        # What only the first epoch runs reads texts and cuts rows; what every epoch runs makes batches.
        lines.forget("data")
        for batches in (
            bench.subject.train_batches(1),
            bench.subject.val_batches and bench.subject.val_batches(),
        ):
            list(itertools.islice(batches or (), 3))
        measure(Bench(bench.subject), 2, kept)
        lines.stop()
        kept = Reference(kept.held, kept.val, whole=whole)
        begun = time.process_time()
        kept.measured = measure(Bench(subject), updates, kept)
        kept.seconds = time.process_time() - begun
        other = measure(Bench(subject, 1), updates, kept).curve
        kept.noise = abs(other[max(other)] / kept.measured.curve[max(other)] - 1)
        own = [told(f) for f in explained(diagnose(subject)).findings]
    keep.write_bytes(pickle.dumps(kept))
    return {
        "loss": kept.measured.loss,
        "noise": kept.noise,
        "figures": kept.measured.figures,
        "own": own,
        "lines": {
            str(Path(file).relative_to(workplace.folder.parent)): {n: sorted(ran) for n, ran in found.items()}
            for file, found in lines.seen.items()
        },
    }


def trial(workplace: Workplace, updates: int, keep: Path, climbs: bool) -> dict:
    """What is to be written of a mutant.

    Args:
        climbs: whether it is climbed if it does no harm, too.
    """
    kept: Reference = pickle.loads(keep.read_bytes())
    begun = time.process_time()
    # The default action of the signal ends the process: a mistake may go on for ever.
    signal.setitimer(signal.ITIMER_PROF, _ENDLESS * kept.seconds + 1)
    try:
        with loaded(workplace) as (subject, explained):
            measured = measure(Bench(subject), updates, kept)
            verdict, why = judged(measured, kept)
            beside = kept.measured.curve[max(measured.curve)]
            found = {"verdict": verdict, "why": why, "loss": measured.loss, "original": beside}
            found["trained"] = time.process_time() - begun
            signal.setitimer(signal.ITIMER_PROF, 0)
            if verdict == HURTS or (verdict in (EQUIVALENT, UNCHANGED) and climbs):
                found["findings"] = [told(f) for f in explained(diagnose(subject)).findings]
                found["climbed"] = time.process_time() - begun - found["trained"]
            return found
    except AnotherSetup as other:
        return {"verdict": ANOTHER, "why": str(other)}
    except (SubjectFault, StoriesError, UnusableBatch, SystemExit) as error:
        return {"verdict": FAILS, "why": str(error)[:300]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def loaded(workplace: Workplace) -> Iterator[tuple[Subject, Callable]]:
    """The subject, and what adds to a diagnosis what only its script shows."""
    mx.random.seed(0)
    if not workplace.origin.script:
        yield load_subject(workplace.spec), lambda diagnosis: diagnosis
        return
    with CapturedScript(workplace.spec, workplace.origin.argv) as script:
        yield script.subject, script.explained


def judged(measured: Measured, kept: Reference) -> tuple[str, str]:
    """The verdict and its reason."""
    before = kept.measured
    if measured.broke:
        return HURTS, measured.broke
    at = max(measured.curve)
    gap, harm = measured.curve[at] / before.curve[at] - 1, max(HARM, 2 * kept.noise)
    if not gap < harm:
        return HURTS, f"held-out loss {gap:+.1%} after {at} updates"
    if measured.foresight and not before.foresight and gap < -harm:
        return HURTS, f"better than possible: {gap:+.1%}, and it sees what follows"
    for name, ratio in measured.figures.items():
        off = ratio / before.figures[name] - 1 if before.figures.get(name) else 0.0
        if not abs(off) < HARM:
            return HURTS, f"{name} off by {off:+.1%}"
    if before.greedy == 1 and measured.greedy is not None and measured.greedy < 1:
        return HURTS, f"{1 - measured.greedy:.0%} of the tokens generated are not the model's choice"
    if measured.unchanged:
        return UNCHANGED, "the training is the original's"
    if abs(gap) <= max(SAME, kept.noise):
        return EQUIVALENT, f"held-out loss {gap:+.1%}"
    return (BETTER if gap < 0 else SLIGHT), f"held-out loss {gap:+.1%}"


def told(finding) -> dict:
    """A finding in short."""
    where = finding.where if isinstance(finding.where, dict) else {}
    part = finding.evidence.get("part") or cause_of(finding.code).part
    place = {"file": Path(where["file"]).name, "line": where["line"]} if "line" in where else {}
    return {
        "code": finding.code,
        "severity": finding.severity,
        "part": part,
        "message": finding.message,
        **place,
    }
