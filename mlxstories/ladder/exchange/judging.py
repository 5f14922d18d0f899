"""Which part an exchange accuses, and how surely."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlxstories.findings import ERROR
from mlxstories.ladder.bench.training.short import baselines
from mlxstories.ladder.exchange.drafts import ahead, behind, other_data, thinner
from mlxstories.ladder.exchange.evaluated import lagging
from mlxstories.ladder.exchange.exchange import ALL, AROUND, AS_IS, LOSS, Exchange, Gap, gap
from mlxstories.ladder.exchange.halving import HELPS, Proof, best_in_model, best_in_step, controlled
from mlxstories.ladder.exchange.influence import influence
from mlxstories.ladder.exchange.material import material
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.verdict import Draft, error, warning

LIMITS = {
    "far": Limit(0.12, "of the loss, behind the exchange of step or loss"),
    "far_for_sure": Limit(0.08, "of the loss, lower end of that gap"),
    "slower": Limit(
        0.30, "of the loss, lower end of the gap behind a plain step that no change inside closes"
    ),
    "near": Limit(
        0.03, "of the loss, behind the exchange of step or loss, with a change inside that closes it"
    ),
    "model": Limit(0.035, "of the loss, behind a plain model, from which its inside is searched"),
    "thin": Limit(0.05, "of the loss, behind a plain model, without a change inside that closes it"),
    "helps": Limit(HELPS, "of the loss, lower end of what a change inside takes away"),
    "closes": Limit(0.5, "of the gap that a change inside closes"),
    "ahead": Limit(0.15, "of the loss, ahead of a plain model"),
    "far_ahead": Limit(0.30, "of the loss, ahead of a plain model"),
    "trained": Limit(0.9, "of the loss of word frequencies, before any training"),
    "lags": Limit(0.30, "of the loss of the trained weights, by which those that are validated are behind"),
    "asked": Limit(0.9, "of the real places that a loss depends on"),
}


def judge(exchange: Exchange) -> list[Draft]:
    """The findings of a finished exchange; makes the trainings inside the part at fault."""
    limits = Gauges(LIMITS)
    return [*_trained(exchange, limits), *lagging(exchange, limits)]


def _trained(exchange: Exchange, limits: Gauges) -> list[Draft]:
    told = _data(exchange, limits)
    if any(draft.severity == ERROR for draft in told):
        return told
    # A warning, of data or of a rate that is only slow, ends no search of the other parts.
    for judged in (*_larger_first(exchange), _model):
        told = [*judged(exchange, limits), *told]
        if any(draft.severity == ERROR for draft in told):
            break
    return told


def _larger_first(exchange: Exchange) -> list[Callable[[Exchange, Gauges], list[Draft]]]:
    """Step and loss by the size of the gaps that they leave: with a wrong loss, two steps differ for no good reason."""
    step, loss = exchange.gap_of("step"), exchange.gap_of("loss")
    return [_loss, _step] if step and loss and loss.share > step.share else [_step, _loss]


def known(exchange: Exchange) -> list[Draft]:
    """The findings of an exchange that was broken off: what the finished trainings prove by themselves."""
    limits, found = Gauges(LIMITS), []
    for part in AROUND:
        between = exchange.gap_of(part)  # of one seed: there is no time for another
        if between is not None and _clear(between, limits):
            found.append((between, part))
    if not found:
        return []
    between, part = max(found, key=lambda one: one[0].share)
    if part == "data":
        return [other_data(exchange, between)]
    # Nobody knows yet whether more of the step's own updates would close its gap, which is no mistake then.
    make = _loss_severity(exchange) if part == "loss" else warning
    return [behind(exchange, part, *exchange.of_part(part), between, None, make=make)]


def _clear(between: Gap, limits: Gauges) -> bool:
    return limits.far.above(between.share) and limits.far_for_sure.above(between.low)


def _proves(proof: Proof, between: Gap, limits: Gauges) -> bool:
    """Whether a change inside a part certainly closes a good part of the gap."""
    helped = proof.gap(limits.helps.value)
    if not limits.helps.above(helped.low):
        return False
    return math.isinf(between.share) or limits.closes.above(helped.share / between.share)


def _data(exchange: Exchange, limits: Gauges) -> list[Draft]:
    between = exchange.gap_of("data", limits.far.value)
    if between is None or not limits.helps.above(between.low):
        return []
    return [other_data(exchange, between, error if _clear(between, limits) else warning)]


def _step(exchange: Exchange, limits: Gauges) -> list[Draft]:
    between = exchange.gap_of("step", limits.far.value)
    if between is None or not limits.near.above(between.share):
        return []
    runs = exchange.of_part("step")
    proved = [proof for proof in best_in_step(exchange)[:1] if _proves(proof, between, limits)]
    proved = proved or [p for p in best_in_step(exchange, rate=True) if _proves(p, between, limits)]
    if not proved:
        make = error if limits.slower.above(between.low) else warning  # another optimiser may only be slower
        return [behind(exchange, "step", *runs, between, None, make=make)] if _clear(between, limits) else []
    proof = next((proof for proof in proved if proof.intervention.part == "model"), proved[0])
    make, part = _weighed(exchange, proof, between, limits), proof.intervention.part
    runs = (exchange.runs[AS_IS], exchange.runs[ALL]) if part == "model" else runs
    return [behind(exchange, part, *runs, between, proof, make=make)] if make else []


def _weighed(exchange: Exchange, proof: Proof, between: Gap, limits: Gauges) -> Callable[..., Draft] | None:
    """Whether a change that closes the step's gap is an error, a warning or no news."""
    change = proof.intervention
    if change.part == "model":
        return error if not change.may_be_meant or _far(proof, limits) else warning
    if change.scale > 1:
        # They only save time, and more of the own ones do the same: no news where a plain step saves little, too, or
        # the stated run gets as far by its own.
        stated = exchange.bench.subject.updates or 0
        return warning if stated < change.scale * exchange.updates and _clear(between, limits) else None
    if change.scale < 1:
        return error if _far(proof, limits) else warning
    if not change.may_be_meant:
        return error
    if change.late:
        return warning
    # An optimiser of another kind may only be slower, as Lookahead is than the one inside it.
    sure = limits.far.above(proof.gap(limits.far.value).low)
    return error if sure else warning if _clear(between, limits) else None


def _loss(exchange: Exchange, limits: Gauges) -> list[Draft]:
    between = exchange.gap_of("loss", limits.far.value)
    if between is None or not limits.near.above(between.share):
        return []
    reached = influence(exchange.bench)
    offset, often = reached.offset if reached is not None else (0, 0.0)
    words = ""
    if reached is not None and limits.asked.below(reached.share):
        words = f"; it depends on {reached.share:.0%} of the real places alone"
    elif offset and limits.asked.above(often):
        words = f"; it asks for the target's id {offset:+d}"
    if not words and not _clear(between, limits):
        return []
    make = _loss_severity(exchange)
    if make is warning:
        words += "; in evaluation mode it is the plain one, so what it does in training may be meant"
    return [behind(exchange, "loss", *exchange.of_part("loss"), between, None, words, make)]


def _loss_severity(exchange: Exchange) -> Callable[..., Draft]:
    """What makes training harder, such as noise in the inputs, may be meant, and shows later that it helps."""
    return warning if exchange.same_loss[False] else error


def _model(exchange: Exchange, limits: Gauges) -> list[Draft]:
    if not math.isfinite(exchange.own.loss):
        return []  # the climb says why
    if not material(exchange.bench).unseen:
        return []  # what is measured may only be learnt by heart
    if limits.model.above(exchange.gap_of("model").share):
        exchange.at_any_rate(LOSS)
    between = exchange.gap_of("model")
    if limits.model.above(between.share):
        return _model_behind(exchange, between, limits)
    if found := _dropout(exchange, between, limits):
        return found
    if limits.trained.below(exchange.start / baselines(exchange.bench).unigram):
        return []  # it brought what it knows
    return _ahead(exchange, limits)


def _dropout(exchange: Exchange, between: Gap, limits: Gauges) -> list[Draft]:
    """Dropout of the subject's own is held against the library's of the same share, which needs no plain decoder."""
    for proof in best_in_model(exchange, dropouts=True) if exchange.shape.dropped else ():
        if limits.helps.above(proof.gap(limits.helps.value).low):
            return [behind(exchange, "model", exchange.own, exchange.runs[ALL], between, proof)]
    return []


def _model_behind(exchange: Exchange, between: Gap, limits: Gauges) -> list[Draft]:
    # Changes are trained by the plain step, and prove nothing where the model as it is breaks down under that.
    comparable = math.isfinite(exchange.runs[LOSS].loss)
    changed = best_in_model(exchange) if comparable else []
    # A part drawn anew may only be of another kind than the plain one, and 16 bits are chosen; another change of
    # what is there shows a mistake.
    for alone in sorted(changed, key=lambda proof: proof.intervention.may_be_meant):
        if not _proves(alone, between, limits):
            continue
        proof = controlled(exchange, alone)
        if not _proves(proof, between, limits):
            continue
        change = proof.intervention
        # Where all begin at GPT-2's 0.02, which in a narrow model is little, another layer may only begin sooner.
        slow = change.redrawn and exchange.shape.deviation is not None
        sure = not proof.helps_any and (not change.may_be_meant or (_far(proof, limits) and not slow))
        runs = exchange.own, exchange.runs[ALL]
        return [behind(exchange, "model", *runs, between, proof, make=error if sure else warning)]
    if not limits.thin.above(between.share):
        return []
    return [thinner(exchange, between)]


def _far(proof: Proof, limits: Gauges) -> bool:
    return limits.far_for_sure.above(proof.gap(limits.far_for_sure.value).low)


def _ahead(exchange: Exchange, limits: Gauges) -> list[Draft]:
    # By one and the same step: the subject's own may be the better one, and no leak.
    own, plain = exchange.runs[LOSS], exchange.runs[ALL]
    between = gap(own, plain, -limits.far_ahead.value)
    if not limits.ahead.above(-between.share):
        return []
    return [ahead(exchange, between, make=error if limits.far_ahead.above(-between.share) else warning)]
