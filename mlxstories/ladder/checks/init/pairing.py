"""Whether the loss compares each target with the logits of its own place."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.pairing import Pairing, pairing
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "targets meet their own logits",
    rung="init",
    causes=("targets-mismatched", "wrong-loss"),
    unless=("token-out-of-range", "not-finite", "targets-mismatched", "targets-not-shifted"),
    own=Limit(0.5, "of the cells that count"),
    most=Limit(0.75, "of the cells that count"),
)
def own_logits(bench: Bench, limits: Gauges) -> Verdict:
    """Exchanges the target of one cell after the other, and looks at which logits' gradient answers.

    A loss may mix up places and rows and still fall: the model learns which tokens are frequent, and what is a few
    places on. The same test shows an inverted mask: the targets that count then have no effect anywhere.
    Example: logits of [B, V, T] brought to [B * T, V] by a reshape without a transpose; targets that are shifted in the
    data and again in the loss, after both were flattened; `mx.where(mask, 0, losses)`.
    Fix: `nn.losses.cross_entropy(logits, targets)` of [B, T, V] and [B, T], weighed with the mask.
    """
    found = pairing(bench)
    if found is None:
        return skipped("the loss needs more of a model than its logits, draws something, or is the default")
    detail = f"{found.own:.0%} of {len(found.asked)} cells"
    if not limits.own.below(found.own):
        return passed(detail)
    where = "loss" if bench.subject.loss is not None else "train_step"
    if limits.most.above(found.nowhere):
        # Some losses look away from most places on purpose, and say so nowhere; but never at masked ones.
        return failed(detail, _unheard(where)) if found.masked else passed(detail)
    away, share = found.offset
    return failed(detail, _shifted(found, where, away) if limits.most.above(share) else _mixed(found, where))


def _shifted(found: Pairing, where: str, away: int) -> Draft:
    return error(
        "targets-mismatched",
        f"the {where} compares logits with the target {abs(away)} place{'s' * (abs(away) > 1)} "
        f"{'on' if away > 0 else 'back'}, although the batches are shifted already: the model learns the token "
        f"{away + 1} places on",
        fix="shift once, in the data or in the loss, and compare logits[:, t] with targets[:, t]",
        where=where,
        shift=away,
    )


def _mixed(found: Pairing, where: str) -> Draft:
    return error(
        "wrong-loss",
        f"the {where} compares {1 - found.own:.0%} of the targets with the logits of another place or row: another "
        "target at one cell moves the gradient elsewhere",
        fix="keep [B, T, V] and [B, T] in one order: transpose where axes change their meaning, and reshape only after",
        where=where,
        pairs=[[*a, *(h or ())] for a, h in zip(found.asked, found.heard, strict=True)],
    )


def _unheard(where: str) -> Draft:
    return error(
        "wrong-loss",
        f"the {where} does not depend on the targets that count, but does on those of masked cells: its mask is "
        "inverted",
        fix="weigh the losses with the mask itself: 1 where a target counts",
        where=where,
    )
