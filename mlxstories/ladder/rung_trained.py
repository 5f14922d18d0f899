"""Rung 6: the trained model: leaks that training opened, the subject's validation and its decoding."""

from __future__ import annotations

from mlxstories.ladder import decoding, validation
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.causality import dependence, harm, matrix
from mlxstories.ladder.examination import Examination
from mlxstories.ladder.limits import Gauges


def climb(exam: Examination) -> None:
    """Ask again what each position sees, then compare evaluation and generation with our own."""
    runs = [exam.facts["trained"]] if "trained" in exam.facts else []
    if not exam.has("no-update", "not-finite"):
        runs.append(memorising(exam).trial)
    model = next((run.model for run in runs if run.finite), None)
    if model is None:
        exam.check("the trained model", None, "no training run ended well")
    elif not exam.has("future-leak", "batch-leak"):
        views = [("after training", dependence(exam, model, seed=4))]
        for name, judge in (("rows are independent", rows_verdict), ("sees no later token", future_verdict)):
            gauges = Gauges(LIMITS)
            verdict = judge(views, gauges)
            exam.climb.line(exam.rung, Line(name, verdict.status, verdict.detail))
            for draft in verdict.drafts:
                exam.climb.found(draft, exam.rung, gauges)
    else:
        gain = harm(exam, model)
        exam.check("gain from seeing later tokens", None, f"{gain:.2f} nats a token")
    if model is not None:
        exam.rung.figures["causality"] = dependence_matrix(exam, model)
    validation.examine(exam, model)
    decoding.examine(exam)
