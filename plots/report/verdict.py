"""A run in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.findings import Finding
from mlxstories.findings.limits import BELOW_FLOOR
from mlxstories.plots.report.summary import RunSummary, Scores


@dataclass(frozen=True)
class Verdict:
    """The judgement on a run.

    Attributes:
        status: "good", "warning", "error" or "open" (not finished, nothing found so far).
        word: the status in a word or two.
        sentence: what was found and what was reached.
    """

    status: str
    word: str
    sentence: str

    @property
    def text(self) -> str:
        return f"{self.word}: {self.sentence}"


def verdict(summary: RunSummary) -> Verdict:
    """Errors first, then warnings, then how far the run came; nothing is called healthy before it has ended."""
    reached = _reached(summary.scores)
    if "pairs" in summary.baselines:
        reached += f"; counts of token pairs alone reach {summary.baselines['pairs']:.3f}"
    elif summary.scores is not None and summary.scores.floor is None:
        reached += "; no floor is known for these stories"
    if not summary.finished:
        reached = f"{_done(summary)}; {reached}" if summary.scores else _done(summary)
    if summary.errors:
        return Verdict("error", "Not healthy", f"{_cause(summary.errors)}. {capital(reached)}.")
    if impossible := _impossible(summary):
        return Verdict("error", "Not healthy", f"{impossible}. {capital(reached)}.")
    if summary.repaired:
        fix = summary.repaired[0].fix
        return Verdict("warning", "Repaired", f"{_cause(summary.repaired)}; {fix}. {capital(reached)}.")
    if summary.warnings:
        return Verdict("warning", "A warning", f"{_cause(summary.warnings)}. {capital(reached)}.")
    if behind := _behind_counts(summary):
        return Verdict("warning", "Not trained enough", f"{behind}. {capital(reached)}.")
    if not summary.finished:
        return Verdict("open", "Unfinished", f"{reached}, and nothing wrong so far.")
    return Verdict("good", "Healthy", f"{reached}.")


def _cause(found: list[Finding]) -> str:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].code}{more}: {found[0].message}"


def _impossible(summary: RunSummary) -> str | None:
    """What the figures alone say against a run in which nothing was found."""
    scores = summary.scores
    if scores is None:
        return None
    if scores.floor is not None and BELOW_FLOOR.above(scores.floor - scores.loss):
        return "the loss is below the floor, which no honest model can reach"
    if summary.finished and summary.first is not None and scores.loss >= summary.first:
        return f"training made nothing better than the untrained model's {summary.first:.3f} nats"
    return None


def _behind_counts(summary: RunSummary) -> str | None:
    """Where a finished model of a text of one's own predicts worse than counting pairs of tokens."""
    pairs = summary.baselines.get("pairs")
    if not summary.finished or summary.scores is None or pairs is None or summary.scores.loss <= pairs:
        return None
    over = summary.best is not None and summary.best[0] < summary.step  # and going on would not have helped
    needed = "more text" if over else "more epochs or more text"
    return f"counting which token follows which predicts better: {needed} would help"


def capital(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def _done(summary: RunSummary) -> str:
    if summary.step == 0:
        return "no update has been measured yet"
    planned = f" of {summary.total:,}" if summary.total else ""
    return f"{summary.step:,}{planned} updates done"


def _reached(scores: Scores | None) -> str:
    if scores is None:
        return "nothing has been measured on held-out stories"
    text = f"held-out loss {scores.loss:.3f} nats per token"
    if scores.bits is not None:
        text += f" ({scores.bits:.3f} bits per character)"
    if scores.above_floor is not None:
        side = "above" if scores.above_floor >= 0 else "below"
        text += f", {abs(scores.above_floor):.1%} {side} the floor of {scores.floor:.3f}"
    text += f", and {scores.accuracy:.1%} of the next tokens right"
    if scores.of_ceiling is not None:
        return f"{text}: {scores.of_ceiling:.1%} of what is possible"
    return text
