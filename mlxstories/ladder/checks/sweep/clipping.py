"""Whether gradients are clipped to next to nothing."""

from __future__ import annotations

import math

from mlxstories.findings.limits import CLIPPED
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.clipping import (
    Clip,
    clipping,
    full_size_run,
    orthogonal_size,
    unclipped_run,
)
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.rates import rate_sweep
from mlxstories.ladder.checks.sweep.rate_evidence import sweep_evidence
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
    singular=Limit(0.2, "singular value, root mean square, of what is orthogonalised"),
    more=Limit(0.15, "of the tokens, more right at singular values of 1"),
)
def clipped(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for a clip that binds on every batch, in the gradients that reach the optimiser.

    A clip far below the usual norm makes every step the same tiny one, and below Adam's epsilon none at all. Adam
    hardly minds a milder one: it is an error only where stories were not memorised, and gradients let through at a
    norm of 1 do better. The norm of orthogonalised gradients, as Muon's are, is a matter of the matrices' shapes, and
    a clip after them divides every step by it: a warning where steps of full size learn more.

    Example: `clip_grad_norm(gradients, 1e-6)`; `clip_grad_norm` of what Newton-Schulz has made.

    Fix: clip at a norm of about 1, above the usual norm of the gradient; clip before orthogonalising.
    """
    clip = clipping(bench)
    if clip is None:
        return skipped("no clip that binds on every batch")
    detail = f"{clip.share:.1%} of the gradient is left"
    if (late := _late(bench, clip, limits)) is not None:
        return passed(detail, late)
    if not limits.share.below(clip.share):
        return passed(detail)
    if memorising(bench).learned:
        mild = limits.share_memorised.above(clip.share)
        return passed(detail) if mild else passed(detail, _draft(warning, clip, {}))
    loss = _loss_at_a_norm_of_1(bench, limits)
    if loss is None:
        return passed(detail)
    return failed(detail, _draft(error, clip, {**sweep_evidence(bench), "loss_at_a_norm_of_1": loss}))


def _late(bench: Bench, clip: Clip, limits: Gauges) -> Draft | None:
    """The warning of a norm clipped after orthogonalising, where that keeps steps from learning."""
    size = orthogonal_size(bench) if clip.kind == "norm" else None
    if size is None or not limits.singular.below(size):
        return None
    own, full = rate_sweep(bench).by_scale[1.0][1], full_size_run(bench)[1]
    if not limits.more.above(full - own):
        return None
    return warning(
        "clipping-too-tight",
        f"the norm is clipped to {clip.limit:.2g} after matrices were orthogonalised, whose singular values are "
        f"{size:.1g} from then on instead of 1; let through at full size, {rate_sweep(bench).steps} steps on a few "
        f"stories bring {full:.0%} of the tokens right instead of {own:.0%}",
        fix="clip the gradient before it is orthogonalised, and let the optimiser's rate set the size of the step",
        where="train_step",
        limit=clip.limit,
        singular_value=size,
        accuracy=own,
        accuracy_at_full_size=full,
    )


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
