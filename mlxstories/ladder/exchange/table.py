"""One line for each part of a setup, with what exchanging it showed."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlxstories.findings.causes import PARTS
from mlxstories.ladder.bench import SubjectFault
from mlxstories.ladder.bench.data.coverage import coverage
from mlxstories.ladder.bench.evaluation.evaluation import figures_of
from mlxstories.ladder.bench.generation.decoding import continuations
from mlxstories.ladder.diagnosis import Line
from mlxstories.ladder.exchange.exchange import AS_IS, LOSS, Exchange, gap
from mlxstories.ladder.exchange.training import Training
from mlxstories.ladder.verdict import FAILED, PASSED, SKIPPED

_TIE = 1e-3  # of the logits' spread, within which a choice may go either way


def table(exchange: Exchange, accused: set[str]) -> list[Line]:
    """The parts, of which the ``accused`` have an error of their own, the ladder's or the exchange's.

    Evaluation and decoding are exchanged for ours on the model that the setup itself has trained.
    """
    tellers: dict[str, Callable[[Exchange], str]] = {
        "data": _data,
        "evaluation": _evaluation,
        "generation": _generation,
    }
    lines = []
    for part in PARTS:
        try:
            told = tellers[part](exchange) if part in tellers else _between(exchange, part)
        except SubjectFault as fault:
            told = fault.draft.message
        status = FAILED if part in accused else PASSED if told else SKIPPED
        lines.append(Line(part, status, told or "not compared"))
    return lines


def _between(exchange: Exchange, part: str) -> str:
    made = exchange.of_part(part)
    if made is not None:
        return _gap(*made)
    both = [exchange.runs.get(name) for name in (AS_IS, LOSS)]
    if part == "model" or None in both:
        return ""
    return f"step and loss together: {_gap(*both)}"


def _gap(before: Training, after: Training) -> str:
    words = f"{after.name} {after.loss:.3f} instead of {before.loss:.3f}"
    between = gap(before, after)
    if not math.isfinite(between.share) or not math.isfinite(between.error):
        return words
    return f"{words}: {between.share:+.1%} (95 %: {between.low:+.1%} to {between.high:+.1%})"


def _data(exchange: Exchange) -> str:
    subject, told = exchange.bench.subject, []
    if made := exchange.of_part("data"):
        told.append(_gap(*made))
    elif exchange.runs:
        told.append("rows are as mixed as chance would have them, or too few to tell")
    if subject.tokenizer is not None and subject.train_texts and exchange.runs:
        seen = coverage(exchange.bench)
        if seen is not None:
            told.append(f"{seen.both:.0%} of the texts' stretches in two epochs")
    return "; ".join(told)


def _evaluation(exchange: Exchange) -> str:
    """What the setup's validation reports of its own trained model, and our measure of the same batches."""
    run = exchange.runs.get(AS_IS)
    if exchange.bench.subject.evaluate is None or run is None or run.broke is not None:
        return ""
    found = figures_of(exchange.bench, run.model)
    if found is None or "loss" not in found.values:
        return ""
    return f"a loss of {found.values['loss']:.4f} is reported, ours of the same batches is {found.mean:.4f}"


def _generation(exchange: Exchange) -> str:
    """How many tokens of its decoding are the trained model's own choice."""
    run = exchange.runs.get(AS_IS)
    if exchange.bench.subject.generate is None or run is None or run.broke is not None:
        return ""
    behind = [b for one in continuations(exchange.bench, "as trained", run.model) for b in one.behind]
    if not behind:
        return ""
    return f"{sum(b < _TIE for b in behind)} of {len(behind)} tokens are the trained model's own choice"
