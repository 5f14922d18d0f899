"""Whether the loss asks for the targets, whichever id they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.demands import Asked, Demands, asked, demands
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "the loss asks for the target",
    rung="init",
    causes=("wrong-loss",),
    unless=(
        "token-out-of-range",
        "not-finite",
        "loss-sign",
        "double-softmax",
        "targets-mismatched",
        "targets-not-shifted",
    ),
    right=Limit(0.5, "of the cells that count"),
    beside=Limit(0.8, "of the cells, the same distance beside the target"),
    wrong=Limit(0.1, "of the gradient where half sure of the target"),
    deeper=Limit(0.5, "of the cells, where sure of a wrong id"),
    tied=Limit(0.02, "of the gradient, by the logits' sum at other places"),
    late=Limit(0.05, "of what is pushed up, for the token just read beyond others"),
    rolled=Limit(0.9, "of the last places, for the first token of the next row"),
)
def asks_for_the_target(bench: Bench, limits: Gauges) -> Verdict:
    """Takes the gradient of the loss with respect to logits: which id does it push upwards at each place that counts,
    and how loudly where the model is sure of a wrong one?

    A loss that asks for another id trains another text; one whose gradient dies where the model is wrong, as that of
    squared errors of probabilities, never corrects it; one that makes it surer there has no lowest value; one whose
    softmax is not over the vocabulary weighs places against each other; one with a term that is a place late trains to
    repeat; one that rolls rows puts the beginning of another behind the end of each.
    Example: `cross_entropy(logits, targets - 1)`; `((mx.softmax(logits) - one_hot) ** 2).mean()`; a student's
    `logits[:, 1:]` held against a teacher's `logits[:, :-1]`.
    Fix: `nn.losses.cross_entropy(logits, targets)`.
    """
    found = demands(bench)
    if found is None:
        return skipped("the loss needs more of a model than its logits, or is the default")
    detail = f"at {found.right:.0%} of the cells that count"
    away, share = found.beside
    if limits.right.below(found.right) and limits.beside.above(share):
        return failed(detail, _beside(bench, found, away, share))
    if limits.wrong.below(found.wrong):
        return failed("hardly, where the model is sure of another", _deaf(bench, found))
    if bench.subject.loss is not None and limits.deeper.above(found.deeper):  # a step may climb a sound one
        return failed(f"for a wrong one at {found.deeper:.0%} of the cells", _deeper(bench, found))
    if limits.tied.above(found.tied):
        return failed("logits of one place decide at another", _tied(bench, found))
    if limits.late.above(found.read):
        return failed(f"{found.read:.0%} is for the token just read", _late(bench, found))
    if limits.rolled.above(found.rolled):
        return failed("at the ends of rows for the beginning of the next", _rolled(bench, found))
    return passed(detail)


@check(
    "the loss knows every id",
    rung="init",
    causes=("wrong-loss",),
    unless=("token-out-of-range", "not-finite", "loss-sign", "double-softmax", "targets-not-shifted"),
    fits=Limit(0.98, "of the cells that count"),
    merged=Limit(2, "ids of the subject's own targets"),
)
def knows_every_id(bench: Bench, limits: Gauges) -> Verdict:
    """Puts random ids in the place of the targets and takes the gradient of the loss with respect to logits: does it
    push the target up, or the same other id for all targets above some id, or the target's remainder?

    A loss that clips its targets, or holds them in 8 or 16 bits, never trains the ids beyond, and trains another one
    in their place.
    Example: `cross_entropy(logits, mx.minimum(targets, 255))`; `targets.astype(mx.uint8)`.
    Fix: pass the targets to the cross-entropy as int32.
    """
    found = asked(bench)
    if found is None:
        return skipped("the loss needs more of a model than its logits, or is the default")
    for kind, mapped in _narrowings(found):
        lost = set(found.real[mapped(found.real) != found.real].tolist())
        shown = (mapped(found.targets) != found.targets).any()  # of many ids few are tried
        fits = float((mapped(found.targets) == found.pushed).mean()) if len(found.targets) else 0.0
        if limits.merged.above(len(lost)) and shown and not limits.fits.below(fits):
            return failed(f"{len(lost)} are never asked for", _narrowed(bench, kind, lost))
    return passed(f"{len(found.targets)} tried")


def _narrowings(found: Asked) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Ways in which targets lose ids: words, and the function of ids."""
    if len(found.pushed):
        highest = int(found.pushed.max())
        yield f"id {highest} for every target above it", lambda ids: np.minimum(ids, highest)
    for bits in (8, 16):
        words = f"the remainder of the target by {2**bits}, as {bits} bits hold it"
        yield words, lambda ids, bits=bits: ids % 2**bits


def _narrowed(bench: Bench, kind: str, lost: set[int]) -> Draft:
    return error(
        "wrong-loss",
        f"the loss asks for {kind}: {len(lost)} of the ids that are to be predicted are never trained",
        fix="pass the targets to the cross-entropy as int32, without a clip or minimum",
        where=_where(bench),
        ids=len(lost),
    )


def _where(bench: Bench) -> str:
    return "loss" if bench.subject.loss is not None else "train_step"


def _beside(bench: Bench, found: Demands, away: int, share: float) -> Draft:
    return error(
        "wrong-loss",
        f"at {share:.0%} of the places that count the loss asks for the id {abs(away)} "
        f"{'above' if away > 0 else 'below'} the target's: the model learns another text than the one it is shown",
        fix="pass the targets to the cross-entropy unchanged",
        where=_where(bench),
        away=away,
        share=share,
    )


def _deaf(bench: Bench, found: Demands) -> Draft:
    return error(
        "wrong-loss",
        f"where the model is sure of a wrong token the loss's gradient is {found.wrong:.1e} of that where it is half "
        "sure of the right one; a cross-entropy's is twice as large: mistakes are hardly corrected",
        fix="take nn.losses.cross_entropy of the raw logits; squared errors of probabilities are for other tasks",
        where=_where(bench),
        gradient_where_wrong=found.wrong,
    )


def _deeper(bench: Bench, found: Demands) -> Draft:
    return error(
        "wrong-loss",
        f"where the model is sure of a wrong id the loss pushes that id further up, at {found.deeper:.0%} of the "
        "places that count: a term of the loss has the wrong sign, and grows without end",
        fix="look at the signs and weights of the loss's terms",
        where=_where(bench),
        deeper=found.deeper,
    )


def _tied(bench: Bench, found: Demands) -> Draft:
    return error(
        "wrong-loss",
        f"raising all logits of some places by one number, which changes no probability, changes the loss's gradient "
        f"at the other places by {found.tied:.0%}: one of its softmaxes runs over other axes than the vocabulary",
        fix="take logsumexp, softmax and log_softmax over the last axis of logits [B, T, V]: axis=-1",
        where=_where(bench),
        tied=found.tied,
    )


def _late(bench: Bench, found: Demands) -> Draft:
    return error(
        "wrong-loss",
        f"{found.read:.0%} of what the loss asks for is the token that was just read, at places where the next one is "
        "another: part of the loss compares with what belongs to the place before",
        fix="look for a term of the loss, such as a teacher's or an average's, whose logits or targets are shifted "
        "once too often",
        where=_where(bench),
        read=found.read,
    )


def _rolled(bench: Bench, found: Demands) -> Draft:
    return error(
        "wrong-loss",
        "at the last place of a row the loss asks for the first token of the next row, which has nothing to do with it",
        fix="leave the last place out of a loss that rolls its targets: cross_entropy(logits[:, :-1], inputs[:, 1:])",
        where=_where(bench),
        rolled=found.rolled,
    )
