"""What an exchange says is wrong, with the proof in figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mlxstories.findings import ERROR
from mlxstories.ladder.bench.training.short import baselines
from mlxstories.ladder.exchange.evaluated import lagging
from mlxstories.ladder.exchange.exchange import ALL, AROUND, AS_IS, LOSS, SHUFFLED, Exchange, Gap, gap
from mlxstories.ladder.exchange.halving import Proof, best_in_model, best_in_step, controlled
from mlxstories.ladder.exchange.influence import influence
from mlxstories.ladder.exchange.intervention import Site, site_of
from mlxstories.ladder.exchange.material import material
from mlxstories.ladder.exchange.training import Training
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
    "helps": Limit(0.03, "of the loss, lower end of what a change inside takes away"),
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
    """Step and loss by the gaps that they leave: two steps with a wrong loss differ for no good reason."""
    step, loss = exchange.gap_of("step"), exchange.gap_of("loss")
    return [_loss, _step] if step and loss and loss.share > step.share else [_step, _loss]


def known(exchange: Exchange) -> list[Draft]:
    """The findings of an exchange that was broken off: what the trainings made so far prove by themselves."""
    limits, found = Gauges(LIMITS), []
    for part in AROUND:
        between = exchange.gap_of(part)  # of one seed: there is no time for another
        if between is not None and _clear(between, limits):
            found.append((between, part))
    if not found:
        return []
    between, part = max(found, key=lambda one: one[0].share)
    if part == "data":
        return [_other_data(exchange, between)]
    make = error if part == "loss" or limits.slower.above(between.low) else warning
    return [_behind(exchange, part, *exchange.of_part(part), between, None, make=make)]


def _clear(between: Gap, limits: Gauges) -> bool:
    return limits.far.above(between.share) and limits.far_for_sure.above(between.low)


def _proves(proof: Proof, between: Gap, limits: Gauges) -> bool:
    """Whether a change inside a part takes away a good part of the gap, for sure."""
    helped = proof.gap(limits.helps.value)
    if not limits.helps.above(helped.low):
        return False
    return math.isinf(between.share) or limits.closes.above(helped.share / between.share)


def _data(exchange: Exchange, limits: Gauges) -> list[Draft]:
    between = exchange.gap_of("data", limits.far.value)
    if between is None or not limits.helps.above(between.low):
        return []
    return [_other_data(exchange, between, error if _clear(between, limits) else warning)]


def _other_data(exchange: Exchange, between: Gap, make=error) -> Draft:
    before, after = exchange.of_part("data")
    shuffled = after.name == SHUFFLED
    change = "the epoch's rows shuffled anew" if shuffled else "rows cut from all training texts"
    why = (
        "batches are not drawn at random" if shuffled else "every epoch goes round the same part of the texts"
    )
    return make(
        "behind-reference",
        f"with {change} the held-out loss is {after.loss:.3f} instead of {said(before)} "
        f"after {after.updates} updates: {why}",
        fix="shuffle the rows of the whole epoch before they are made into batches"
        if shuffled
        else "let every epoch reach all texts",
        where=site_of("data", exchange.bench.subject.train_batches),
        part="data",
        **_evidence(exchange, before, after, between),
    )


def _step(exchange: Exchange, limits: Gauges) -> list[Draft]:
    between = exchange.gap_of("step", limits.far.value)
    if between is None or not limits.near.above(between.share):
        return []
    runs = exchange.of_part("step")
    proved = [proof for proof in best_in_step(exchange)[:1] if _proves(proof, between, limits)]
    proved = proved or [p for p in best_in_step(exchange, rate=True) if _proves(p, between, limits)]
    if not proved:
        make = error if limits.slower.above(between.low) else warning  # another optimiser may only be slower
        return [_behind(exchange, "step", *runs, between, None, make=make)] if _clear(between, limits) else []
    proof = next((proof for proof in proved if proof.intervention.part == "model"), proved[0])
    make, part = _weighed(proof, between, limits), proof.intervention.part
    runs = (exchange.runs[AS_IS], exchange.runs[ALL]) if part == "model" else runs
    return [_behind(exchange, part, *runs, between, proof, make=make)] if make else []


def _weighed(proof: Proof, between: Gap, limits: Gauges) -> Callable[..., Draft] | None:
    """Whether a change that closes the step's gap is an error, a warning or no news."""
    change = proof.intervention
    if change.part == "model":
        return error if not change.may_be_meant or _far(proof, limits) else warning
    if change.scale > 1:
        # They only save time, and more of the own ones do the same: no news where a plain step saves little, too.
        return warning if _clear(between, limits) else None
    sure = not change.may_be_meant if change.scale == 1 else _far(proof, limits)
    return error if sure else warning


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
    return [_behind(exchange, "loss", *exchange.of_part("loss"), between, None, words)]


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
            return [_behind(exchange, "model", exchange.own, exchange.runs[ALL], between, proof)]
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
        return [_behind(exchange, "model", *runs, between, proof, make=error if sure else warning)]
    if not limits.thin.above(between.share):
        return []
    own, plain = exchange.own, exchange.runs[ALL]
    return [
        warning(
            "behind-reference",
            f"a plain decoder of this size reaches a held-out loss of {plain.loss:.3f} where this model reaches "
            f"{own.loss:.3f} after {own.updates} updates on the same batches",
            fix="compare the model's code with a plain decoder's, block by block, unless it is meant to be thinner",
            where=Site(part="model"),
            **_evidence(exchange, own, plain, between),
        )
    ]


def _far(proof: Proof, limits: Gauges) -> bool:
    return limits.far_for_sure.above(proof.gap(limits.far_for_sure.value).low)


def _behind(
    exchange: Exchange,
    part: str,
    before: Training,
    after: Training,
    between: Gap,
    proof: Proof | None,
    words: str = "",
    make=error,
) -> Draft:
    """An error: the exchange, or a change inside the part, takes the loss away."""
    plain = {"step": "a plain step", "loss": "a plain loss", "model": "a plain decoder of this size"}[part]
    evidence = {"part": part, **_evidence(exchange, before, after, between)}
    subject = exchange.bench.subject
    site = site_of(part, {"step": subject.train_step, "loss": subject.loss}.get(part))
    if proof is None:
        message = (
            f"with {plain} the held-out loss is {after.loss:.3f} instead of {said(before)} "
            f"after {after.updates} updates on the same batches{words}"
        )
        fix = f"exchange the {part} for a plain one piece by piece and see which piece does it"
        return make("behind-reference", message, fix=fix, where=site, **evidence)
    change, helped = proof.intervention, proof.run
    message = (
        f"with {change.name} the held-out loss is {helped.loss:.3f} instead of {said(proof.beside)} "
        f"after {helped.updates} updates on the same batches ({plain}: {after.loss:.3f}{_also(proof)})"
    )
    evidence["changed"] = change.name
    evidence["seeds"] = helped.seeds
    evidence["helped"] = proof.gap(LIMITS["helps"].value).share
    evidence["curves"][f"with {change.name}"] = helped.curve
    fix = f"look at what this change undoes in the {part}"
    return make("behind-reference", message, fix=fix, where=change.site or site, **evidence)


def _also(proof: Proof) -> str:
    """What the same change makes of the plain decoder."""
    return f", {proof.control[1].loss:.3f} with the same change" if proof.control is not None else ""


def _ahead(exchange: Exchange, limits: Gauges) -> list[Draft]:
    # By one and the same step: the subject's own may be the better one, and no leak.
    own, plain = exchange.runs[LOSS], exchange.runs[ALL]
    between = gap(own, plain, -limits.far_ahead.value)
    if not limits.ahead.above(-between.share):
        return []
    make = error if limits.far_ahead.above(-between.share) else warning
    return [
        make(
            "ahead-of-reference",
            f"by a plain step this model reaches a held-out loss of {own.loss:.3f} after {own.updates} updates where a "
            f"plain decoder of this size reaches {plain.loss:.3f} on the same batches",
            fix="look for a way by which later tokens reach earlier places; an honest model seldom gains so much",
            where=Site(part="model"),
            **_evidence(exchange, own, plain, between),
        )
    ]


def said(run: Training) -> str:
    """The last held-out loss, or why there is none."""
    return f"{run.loss:.3f}" if math.isfinite(run.loss) else f"none ({run.broke})"


def _evidence(exchange: Exchange, one: Training, two: Training, between: Gap) -> dict[str, Any]:
    return {
        "updates": exchange.updates,
        "seed": exchange.bench.seed,
        "seeds": two.seeds,
        "gap": between.share,
        "interval": [between.low, between.high],
        "losses": {name: run.loss for name, run in exchange.runs.items()},
        "curves": {run.name: run.curve for run in (one, two)},
    }
