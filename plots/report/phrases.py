"""Numbers and sentences as the report writes them."""

from __future__ import annotations

from typing import Any

from mlxstories.durations import duration
from mlxstories.plots.report.repeats import Arm
from mlxstories.plots.report.stories import Token
from mlxstories.plots.report.verdict import capital
from mlxstories.plots.runs import short


def sentence(text: str) -> str:
    """With a capital first letter and a full stop."""
    return capital(text) + ("" if text.endswith((".", "!", "?")) else ".")


def value(held: Any) -> str:
    """A configuration's value."""
    if held is None:
        return "–"
    if isinstance(held, bool):
        return "yes" if held else "no"
    return ", ".join(map(str, held)) if isinstance(held, list) else str(held)


def evidence(held: Any) -> str:
    """A number of the evidence in four digits, or whatever else it is."""
    if isinstance(held, float):
        return f"{held:.4g}"
    if isinstance(held, (list, tuple)):
        return ", ".join(map(evidence, held))
    if isinstance(held, dict):
        return ", ".join(f"{name}: {evidence(item)}" for name, item in held.items())
    return f"{held:,}" if isinstance(held, int) and not isinstance(held, bool) else str(held)


def tip(token: Token) -> str:
    """What was thought of a token."""
    lines = [f"model {chance(token.probability)}, entropy {token.entropy:.2f} nats"]
    if token.likeliest is not None:
        lines.append(f"likelier: {token.likeliest}")
    if token.kind == "never":
        lines.append("the source never continues so")
    elif token.kind is not None:
        lines.append(f"source {chance(token.known)}, {token.kind}")
    return "\n".join(lines)


def chance(probability: float) -> str:
    """83%, 0.4%, below 0.01%."""
    if probability < 1e-4:
        return "below 0.01%"
    digits = 0 if probability >= 0.1 else 1 if probability >= 0.01 else 2
    return f"{probability:.{digits}%}"


def arm_verdict(arm: Arm, reference: bool) -> str:
    if reference:
        return "reference"
    if not arm.comparable:
        return "not comparable: other held-out stories"
    if arm.difference is None:
        return "no seed in common"
    return arm.difference.verdict if arm.difference.estimate.n > 1 else "undecided: one seed decides nothing"


FILTERS = {
    "arm_verdict": arm_verdict,
    "capital": capital,
    "count": "{:,.0f}".format,
    "duration": duration,
    "evidence": evidence,
    "nats": "{:.3f}".format,
    "nats_signed": "{:+.3f}".format,
    "percent": "{:.1%}".format,
    "sentence": sentence,
    "short": short,
    "signed": "{:+.1%}".format,
    "tip": tip,
    "value": value,
}
