"""What the ladder reports: findings, rungs and the diagnosis that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"

# Causes before consequences: when several errors are found, the first in this order explains best.
CATALOGUE: Mapping[str, str] = {
    "subject-error": "the subject's own code raised, hung or returned something unusable",
    "token-out-of-range": "a token id lies outside the vocabulary or an embedding table",
    "tokenizer-mismatch": "the batches were not made by this tokenizer from these texts",
    "high-unknown-rate": "too many words are unknown to the tokenizer",
    "constant-batches": "training sees the same batch or row again and again",
    "targets-not-shifted": "the targets are the inputs themselves",
    "targets-mismatched": "the targets are not the tokens that follow the inputs",
    "padding-in-loss": "padding counts as real tokens in the training loss",
    "train-val-overlap": "validation holds what training has seen",
    "not-finite": "a logit, loss or gradient is NaN or infinite",
    "batch-leak": "a row's logits depend on other rows of the batch",
    "future-leak": "a position's logits depend on later tokens",
    "input-blind": "the logits ignore the tokens they should depend on",
    "position-blind": "the order of earlier tokens makes no difference",
    "loss-sign": "training climbs the loss instead of descending it",
    "double-softmax": "a softmax is applied twice",
    "bad-initialization": "the initial weights make learning needlessly hard or impossible",
    "exploding-gradient": "gradients grow without bound through the layers or over the steps",
    "vanishing-gradient": "gradients all but disappear on the way to the early layers",
    "dead-parameters": "trainable parameters never receive a gradient",
    "frozen-parameters": "parameters stay at their random initial values",
    "no-update": "a training step changes nothing",
    "state-not-kept": "the optimiser starts from nothing at every step",
    "extreme-constants": "a constant of the recipe lies far outside what trains",
    "clipping-too-tight": "gradients are clipped to a small part of their length",
    "warmup-too-long": "the learning rate is still warming up when training ends",
    "weight-decay-too-large": "weight decay outweighs the gradients",
    "no-bias-correction": "Adam's first steps are mis-scaled for lack of bias correction",
    "learning-rate-too-large": "a smaller learning rate does far better",
    "learning-rate-too-small": "a larger learning rate does far better",
    "dropout-in-evaluation": "dropout stays on during validation",
    "smoothed-validation-loss": "label smoothing is part of the validation loss",
    "padding-in-accuracy": "padding counts as real tokens in validation",
    "metric-mismatch": "the subject's validation differs from the loss and accuracy recomputed",
    "cache-mismatch": "decoding with the cache departs from the model's own predictions",
    "generation-mismatch": "greedy decoding is not the model's argmax",
    "too-good-to-be-true": "the result is better than any honest model can reach",
    "cannot-overfit": "even a handful of stories cannot be memorised",
    "no-better-than-unigram": "training learns nothing beyond word frequencies",
    "overfitting": "validation gets worse while training gets better",
    "repetition-loop": "greedy text runs into a loop",
}
_RANK = {code: rank for rank, code in enumerate(CATALOGUE)}

_RESULTS = {
    "too-good-to-be-true",
    "cannot-overfit",
    "no-better-than-unigram",
    "overfitting",
    "repetition-loop",
}
_RATES = {"learning-rate-too-large", "learning-rate-too-small"}
_SIGNALS = {"exploding-gradient", "vanishing-gradient", "dead-parameters", "not-finite"}
_DYNAMICS = _RESULTS | _RATES | {"clipping-too-tight", "weight-decay-too-large", "no-bias-correction"}
_VALIDATION = {"padding-in-accuracy", "smoothed-validation-loss", "dropout-in-evaluation", "metric-mismatch"}
_DECODING = {"cache-mismatch", "generation-mismatch"}

# A cause and the other errors that it brings about; all results follow from any error before them.
EXPLAINS: Mapping[str, set[str]] = {
    "subject-error": set(CATALOGUE),
    "token-out-of-range": set(CATALOGUE),
    "tokenizer-mismatch": {"high-unknown-rate"},
    "targets-not-shifted": _DYNAMICS | {"train-val-overlap", "position-blind"},
    "targets-mismatched": _DYNAMICS | {"loss-sign", "padding-in-loss", "padding-in-accuracy"},
    "constant-batches": _DYNAMICS | {"train-val-overlap", "dead-parameters"},
    "padding-in-loss": _DYNAMICS | {"padding-in-accuracy"},
    "not-finite": set(CATALOGUE) - {"subject-error", "token-out-of-range"},
    "batch-leak": _DYNAMICS | _DECODING | _VALIDATION | {"future-leak", "position-blind", "input-blind"},
    "future-leak": _DYNAMICS | _DECODING | {"position-blind", "input-blind"},
    "input-blind": _DYNAMICS | _SIGNALS | _DECODING | {"position-blind", "bad-initialization"},
    "position-blind": _DYNAMICS | {"dead-parameters", "cache-mismatch"},
    "loss-sign": _DYNAMICS | _SIGNALS,
    "double-softmax": _DYNAMICS | _SIGNALS | _VALIDATION | {"bad-initialization"},
    "bad-initialization": _DYNAMICS | _SIGNALS,
    "exploding-gradient": _DYNAMICS | {"not-finite", "vanishing-gradient", "dead-parameters"},
    "vanishing-gradient": _DYNAMICS | {"dead-parameters", "no-update"},
    "dead-parameters": _DYNAMICS | {"frozen-parameters", "no-update"},
    "frozen-parameters": _DYNAMICS | {"dead-parameters", "no-update"},
    "no-update": _DYNAMICS | _SIGNALS,
    "state-not-kept": _DYNAMICS,
    "clipping-too-tight": _DYNAMICS,
    "warmup-too-long": _DYNAMICS,
    "weight-decay-too-large": _DYNAMICS,
    "no-bias-correction": _DYNAMICS,
    "learning-rate-too-large": _DYNAMICS | _SIGNALS,
    "learning-rate-too-small": _DYNAMICS,
    "dropout-in-evaluation": _VALIDATION,
    "smoothed-validation-loss": _VALIDATION,
    "padding-in-accuracy": _VALIDATION,
    "generation-mismatch": {"cache-mismatch"},
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        code: a key of ``CATALOGUE``.
        severity: ``error`` (the result is wrong or training fails), ``warning`` or ``note``.
        rung: the rung that found it.
        message: one sentence.
        evidence: numbers that prove it; ``consequences`` lists the codes folded under this finding.
        fix: one sentence.
        where: a parameter path, batch, option or source line, or None.
    """

    code: str
    severity: str
    rung: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str = ""
    where: str | None = None


@dataclass
class Check:
    """One check of a rung: ``passed``, ``failed`` or ``skipped``, with the reason or the figure in ``detail``."""

    name: str
    status: str
    detail: str = ""


@dataclass
class Rung:
    """A rung climbed, with its checks, its duration in seconds and the data of its figure."""

    name: str
    status: str = "skipped"
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report; figures are left out."""
        return {key: value for key, value in asdict(self).items() if key != "figures"}


@dataclass
class Diagnosis:
    """What the ladder found.

    Attributes:
        subject: name of the subject.
        findings: the most likely cause first; consequences of it are folded under it.
        rungs: in the order climbed.
        seconds: duration of the whole climb.
        consequences: the findings that were folded, for those who want every symptom.
    """

    subject: str
    findings: list[Finding]
    rungs: list[Rung]
    seconds: float
    consequences: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == ERROR for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report."""
        from mlxstories.runs.environment import environment

        return {
            "subject": self.subject,
            "healthy": self.healthy,
            "seconds": round(self.seconds, 3),
            "findings": [asdict(finding) for finding in self.findings],
            "rungs": [rung.to_dict() for rung in self.rungs],
            "environment": environment(),
        }


def fold(findings: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Order findings by severity and cause, and take out those that an error before them explains.

    Returns the findings that remain and the consequences; a remaining finding's evidence names the codes
    folded under it as ``consequences``.
    """
    severities = {ERROR: 0, WARNING: 1, NOTE: 2}
    unique = {(f.code, f.severity, f.where): f for f in reversed(findings)}
    ordered = sorted(
        unique.values(), key=lambda f: (severities[f.severity], _RANK[f.code], findings.index(f))
    )
    kept: list[Finding] = []
    folded: list[Finding] = []
    under: dict[int, list[str]] = {}
    for finding in ordered:
        cause = next((k for k in kept if _explains(k, finding)), None)
        if cause is None:
            kept.append(finding)
        else:
            folded.append(finding)
            under.setdefault(id(cause), []).append(finding.code)
    return [_with_consequences(f, under.get(id(f), [])) for f in kept], folded


def _explains(cause: Finding, finding: Finding) -> bool:
    if cause.severity != ERROR or finding.severity == NOTE:
        return False
    same = cause.code == finding.code
    return same or finding.code in EXPLAINS.get(cause.code, ()) or finding.code in _RESULTS


def _with_consequences(finding: Finding, codes: list[str]) -> Finding:
    if not codes:
        return finding
    evidence = {**finding.evidence, "consequences": sorted(set(codes))}
    return Finding(**{**finding.__dict__, "evidence": evidence})
