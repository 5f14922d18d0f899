"""Whether gradients are clipped to next to nothing."""

from __future__ import annotations

import math

from mlxstories.findings.limits import CLIPPED
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.clipping import Clip, clipping, unclipped_run
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.bench.rates import rate_sweep
from mlxstories.ladder.checks.explaining import sweep_evidence
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning


@check(
    "clipping",
    rung="sweep",
    causes=("clipping-too-tight",),
    unless=ANY,
    share=CLIPPED,
    share_memorised=Limit(0.02, "of the gradient's length, where stories are memorised all the same"),
    gain=Limit(0.12, "of the first loss, at a norm of 1"),
    times=Limit(2.0, "times the gain of the own clip, at a norm of 1"),
)
def clipped(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for a clip that binds on every batch, in the gradients that reach the optimiser.

    A clip far below the usual norm makes every step the same tiny one, and below Adam's epsilon none at all. Adam
    hardly minds a milder one: an error it is only where stories were not memorised, and do better with gradients
    let through at a norm of 1.

    Example: `clip_grad_norm(gradients, 1e-6)`.

    Fix: clip at a norm of about 1, above the usual norm of the gradient.
    """
    clip = clipping(bench)
    if clip is None:
        return skipped("no clip that binds on every batch")
    detail = f"{clip.share:.1%}"
    if not limits.share.below(clip.share):
        return passed(detail)
    if memorising(bench).learned:
        mild = limits.share_memorised.above(clip.share)
        return passed(detail) if mild else passed(detail, _draft(warning, clip, {}))
    loss = _loss_at_a_norm_of_1(bench, limits)
    if loss is None:
        return passed(detail)
    return failed(detail, _draft(error, clip, {**sweep_evidence(bench), "loss_at_a_norm_of_1": loss}))


def _loss_at_a_norm_of_1(bench: Bench, limits: Gauges) -> float | None:
    """The loss with gradients let through, where that helps."""
    sweep = rate_sweep(bench)
    loss = unclipped_run(bench)[0]
    own, gain = sweep.gain(1.0), sweep.start - loss
    helps = math.isfinite(loss) and limits.gain.above(gain / sweep.start)
    return loss if helps and (own <= 0 or limits.times.above(gain / own)) else None


def _draft(severity, clip: Clip, evidence: dict) -> Draft:
    by_norm = clip.kind == "norm"
    return severity(
        "clipping-too-tight",
        f"every gradient is clipped to {'a norm' if by_norm else 'entries'} of {clip.limit:.2g}, "
        f"{clip.share:.1%} of its length",
        fix="clip at a norm of about 1, above the usual gradient norm "
        f"({clip.limit / max(clip.share, 1e-30):.2g} here)"
        if by_norm
        else "clip by global norm, at about 1",
        where="train_step",
        limit=clip.limit,
        share_left=clip.share,
        **evidence,
    )
