"""One trial of a setup, in a process of its own: train it shortly, judge what that shows, and climb if it matters.

    python benchmarks/mutating/trial.py TASK.json RESULT.json

Without a reference in the task the setup is the original: it is trained twice, and what mutants are held against is
kept, with the parts of the setup that run each line.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.findings import cause_of
from mlxstories.ladder import Subject, diagnose, load_subject
from mlxstories.ladder.bench import Bench, SubjectFault
from mlxstories.ladder.bench.arrays import token_losses
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.material import pool, val_epoch
from mlxstories.ladder.capture import CapturedScript
from mlxstories.ladder.exchange.material import material, plain_loss
from mlxstories.ladder.exchange.training import Clock, Training, own_step
from mutating.lines import Lines

HURTS, EQUIVALENT, SLIGHT, BETTER = "hurts", "equivalent", "slight", "better"
UNCHANGED, FAILS = "unchanged", "does not run"
HARM = 0.03  # of the held-out loss, or of a reported figure
CERTAIN = 0.15  # of the held-out loss half-way, after which no training makes up for it
SAME = 0.01  # of the held-out loss: within it a mutant is equivalent, or within what another seed moves
SLIGHTEST = 1e-6  # nats, below which the training is the original's
_VALIDATED = 300  # rows of validation on which figures are compared
_WATCHED = 3  # updates whose lines are told apart by part
_SEEN = 1e-3  # of the logits' spread, by which other tokens move what they must not
_CPU = 45  # seconds of one trial: a mistake may go on for ever


def trial(task: dict) -> dict:
    """What is to be written of one setup."""
    if task["reference"] is None:
        return original(task)
    kept = pickle.loads(Path(task["reference"]).read_bytes())
    try:
        with loaded(task) as (subject, explained):
            measured = measure(Bench(subject, 0), task["updates"], kept)
            verdict, why = judged(measured, kept)
            found = {}
            if verdict == HURTS or (verdict == EQUIVALENT and task["equivalent"]):
                begun = time.process_time()
                found["findings"] = [told(f) for f in explained(diagnose(subject)).findings]
                found["climbed"] = time.process_time() - begun
    except (SubjectFault, StoriesError, SystemExit) as error:
        return {"verdict": FAILS, "why": str(error)[:300]}
    return {"verdict": verdict, "why": why, "loss": measured.loss, "original": kept["measured"].loss, **found}


def original(task: dict) -> dict:
    """Train the original, keep what mutants are held against, and measure what another seed moves."""
    lines = Lines(task["files"])
    with lines.followed(), loaded(task) as (subject, _):
        watched = lines.by_part(subject)
        bench = Bench(watched, 0)
        held = material(bench).held
        val = val_epoch(bench)
        kept: dict[str, Any] = {
            "held": (held.inputs, held.targets, held.mask),
            "val": None if val is None else _arrays(pool(val, _VALIDATED)),
        }
        measure(bench, _WATCHED, kept)
        lines.stop()
        first = measure(Bench(subject, 0), task["updates"], kept)
        second = measure(Bench(subject, 1), task["updates"], kept)
        kept |= {"measured": first, "noise": abs(second.loss / first.loss - 1)}
    Path(task["keep"]).write_bytes(pickle.dumps(kept))
    return {
        "loss": first.loss,
        "noise": kept["noise"],
        "figures": first.figures,
        "lines": {
            file: {line: sorted(parts) for line, parts in found.items()} for file, found in lines.seen.items()
        },
    }


@contextmanager
def loaded(task: dict) -> Iterator[tuple[Subject, Callable]]:
    """The subject, and what adds to a diagnosis what only its script shows."""
    if not task["script"]:
        yield load_subject(task["spec"]), lambda diagnosis: diagnosis
        return
    with CapturedScript(task["spec"], task["argv"]) as script:
        yield script.subject, script.explained


# What a setup shows


@dataclass
class Measured:
    """A short training.

    Attributes:
        curve: (updates, held-out loss in nats per token, by our own measure).
        broke: why training ended, or None.
        figures: by name, what the setup reports over our own measure of the same.
        foresight: whether logits move with later tokens, or with other rows.
        greedy: the share of its own continuation that the model itself would choose, or None.
    """

    curve: list[tuple[int, float]]
    broke: str | None
    figures: dict[str, float]
    foresight: bool
    greedy: float | None

    @property
    def loss(self) -> float:
        return self.curve[-1][1] if self.broke is None else float("inf")


def measure(bench: Bench, updates: int, kept: dict) -> Measured:
    """Train on the setup's own batches, measuring on the original's held-out rows; ends early where it is clear."""
    with bench.protected():
        own = material(bench)
        inputs, targets, mask = kept["held"]
        held = own.held.with_(inputs=inputs, targets=targets, mask=mask)
        bench.taken[material] = replace(own, batches=own.batches[:updates], held=held)
        made: list[Any] = []

        def make(seed: int):
            made[:] = bench.model(seed), bench.optimizer()
            return *made, own_step(bench)

        run = Training(bench, "mutant", make, Clock())
        for share in (0.25, 0.5, 1.0):
            run.advance(share)
            if run.broke or _decided(run.curve, kept):
                break
        if run.broke and "finite" not in run.broke:
            raise StoriesError(run.broke)
        model, optimizer = made
        figures = {} if run.broke else _figures(bench, model, optimizer, kept)
        return Measured(
            run.curve,
            run.broke,
            figures,
            not run.broke and _foresight(bench, model, held),
            None if run.broke else _greedy(bench, model, held),
        )


def _decided(curve: list[tuple[int, float]], kept: dict) -> bool:
    """Whether going on is of no use: the training is the original's, or hopelessly behind it."""
    before = dict(kept["measured"].curve) if "measured" in kept else {}
    updates, loss = curve[-1]
    if updates not in before:
        return False
    behind = updates * 2 >= max(before) and loss > (1 + CERTAIN) * before[updates]
    return behind or _unchanged(curve, before)


def _unchanged(curve: list[tuple[int, float]], before: dict[int, float]) -> bool:
    return all(abs(loss - before.get(at, np.inf)) < SLIGHTEST for at, loss in curve)


def _figures(bench: Bench, model: nn.Module, optimizer, kept: dict) -> dict[str, float]:
    """What evaluation and the training step report, over our own measure."""
    found = {}
    if bench.subject.evaluate is not None and kept["val"] is not None and val_epoch(bench) is not None:
        val = val_epoch(bench)
        count = max(1, -(-_VALIDATED // val.batches[0].shape[0]))
        bench.seed_all(1)
        with bench.calling("evaluate"):
            said = dict(bench.subject.evaluate(model, [batch.user() for batch in val.batches[:count]]))
        ours = _validated(bench, model, kept["val"])
        found = {f"reported {key}": float(said[key]) / ours[key] for key in ours if key in said}
    batches = material(bench).batches[:3]
    ratios = []
    model.train()
    for batch in batches:
        bench.seed_all(2)
        with bench.calling("loss"):
            ours = float(plain_loss(model, batch))
        bench.seed_all(2)
        ratios.append(bench.step(model, optimizer, batch) / max(ours, 1e-9))
    found["training loss"] = float(np.mean(ratios))
    return found


def _validated(bench: Bench, model: nn.Module, arrays: tuple) -> dict[str, float]:
    inputs, targets, mask = arrays
    training = model.training
    model.eval()
    sums = np.zeros(3)
    for start in range(0, len(inputs), 32):
        part = slice(start, start + 32)
        logits = bench.logits(model, np.maximum(inputs[part], 0))
        wanted = (mask[part] > 0) & (targets[part] >= 0)
        goal = np.where(wanted, targets[part], 0).astype(np.int32)
        losses, _ = token_losses(logits, mx.array(goal))
        hits = np.array(logits.argmax(-1)) == goal
        sums += [(np.array(losses) * wanted).sum(), (hits & wanted).sum(), wanted.sum()]
    model.train(training)
    return {"loss": sums[0] / sums[2], "accuracy": max(sums[1], 1) / sums[2]}


def _foresight(bench: Bench, model: nn.Module, held: HostBatch) -> bool:
    """Whether the first half of the first row is told differently once all later tokens and rows are others."""
    inputs = np.maximum(held.inputs[:4], 0)
    other = np.random.default_rng(3).permutation(inputs.ravel()).reshape(inputs.shape)
    half = max(1, inputs.shape[1] // 2)
    other[0, :half] = inputs[0, :half]
    model.eval()
    one, two = (np.array(bench.logits(model, ids))[0, :half] for ids in (inputs, other))
    return bool(np.abs(one - two).max() > _SEEN * one.std())


def _greedy(bench: Bench, model: nn.Module, held: HostBatch, count: int = 8) -> float | None:
    """How many of the tokens that the setup generates are the model's first choice."""
    if bench.subject.generate is None:
        return None
    prompt = [int(token) for token in np.maximum(held.inputs[0, :8], 0)]
    bench.seed_all(4)
    with bench.calling("generate"):
        said = [int(token) for token in bench.subject.generate(model, prompt, count)][:count]
    model.eval()
    if not said:
        return 0.0
    logits = np.array(bench.logits(model, np.array([prompt + said])))[0, len(prompt) - 1 : -1]
    return float(np.mean(logits.max(-1) - logits[np.arange(len(said)), said] < 1e-3))


def judged(measured: Measured, kept: dict) -> tuple[str, str]:
    """The verdict and its reason."""
    before: Measured = kept["measured"]
    if measured.broke:
        return HURTS, measured.broke
    at = dict(before.curve).get(measured.curve[-1][0], before.loss)
    gap, noise = measured.loss / at - 1, kept["noise"]
    if not gap < max(HARM, 2 * noise):
        return HURTS, f"held-out loss {gap:+.1%}"
    if measured.foresight and not before.foresight and gap < -max(HARM, 2 * noise):
        return HURTS, f"better than possible: {gap:+.1%}, and it sees what follows"
    for name, ratio in measured.figures.items():
        off = ratio / before.figures[name] - 1 if before.figures.get(name) else 0.0
        if not abs(off) < HARM:
            return HURTS, f"{name} off by {off:+.1%}"
    if before.greedy == 1 and measured.greedy is not None and measured.greedy < 1:
        return HURTS, f"{1 - measured.greedy:.0%} of the tokens generated are not the model's choice"
    if _unchanged(measured.curve, dict(before.curve)):
        return UNCHANGED, "the training is the original's"
    if abs(gap) <= max(SAME, noise):
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


def _arrays(batch: HostBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return batch.inputs, batch.targets, batch.mask


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU + 5))
    given = json.loads(Path(sys.argv[1]).read_text())
    outcome = trial(given) | {"seconds": time.process_time()}
    Path(sys.argv[2]).write_text(json.dumps(outcome))
    sys.stdout.flush()
    os._exit(0)  # a captured script may have left threads
