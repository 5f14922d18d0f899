"""The words in which an exchange accuses a part, with the figures that prove it."""

from __future__ import annotations

import math
from typing import Any

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange.exchange import ALL, LOSS, SHUFFLED, Exchange, Gap
from mlxstories.ladder.exchange.halving import HELPS, Proof
from mlxstories.ladder.exchange.intervention import Site, site_of
from mlxstories.ladder.exchange.training import Training
from mlxstories.ladder.verdict import Draft, error, warning
from mlxstories.ladder.where.batching import made
from mlxstories.ladder.where.function_lines import function_line


def other_data(exchange: Exchange, between: Gap, make=error) -> Draft:
    """Batches drawn in another way lower the loss."""
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
        where=site(exchange.bench, "data"),
        part="data",
        **_evidence(exchange, before, after, between),
    )


def behind(
    exchange: Exchange,
    part: str,
    before: Training,
    after: Training,
    between: Gap,
    proof: Proof | None,
    words: str = "",
    make=error,
) -> Draft:
    """Exchanging the part, or the change inside it that ``proof`` holds, lowers the loss."""
    plain = {"step": "a plain step", "loss": "a plain loss", "model": "a plain decoder of this size"}[part]
    evidence = {"part": part, **_evidence(exchange, before, after, between)}
    at = site(exchange.bench, part)
    if proof is None:
        message = (
            f"with {plain} the held-out loss is {after.loss:.3f} instead of {said(before)} "
            f"after {after.updates} updates on the same batches{words}"
        )
        fix = f"exchange the {part} for a plain one piece by piece and see which piece does it"
        return make("behind-reference", message, fix=fix, where=at, **evidence)
    change, helped = proof.intervention, proof.run
    message = (
        f"with {change.name} the held-out loss is {helped.loss:.3f} instead of {said(proof.beside)} "
        f"after {helped.updates} updates on the same batches ({plain}: {after.loss:.3f}{_also(proof)})"
    )
    evidence["changed"] = change.name
    evidence["seeds"] = helped.seeds
    evidence["helped"] = proof.gap(HELPS).share
    evidence["curves"][f"with {change.name}"] = helped.curve
    fix = f"look at what this change undoes in the {part}"
    return make("behind-reference", message, fix=fix, where=change.site or at, **evidence)


def site(bench: Bench, part: str) -> Site:
    """Where a step has the weights updated, a generator of batches begins, and a loss."""
    subject, line = bench.subject, None
    if part == "step":
        line = function_line(bench, "behind-reference", "train_step")
    if part == "data":
        line = made(bench, "constant-batches", "train_batches")
    if line is not None:
        return Site(part=part, file=line.file, line=line.line)
    given = {"step": subject.train_step, "loss": subject.loss, "data": subject.train_batches}
    return site_of(part, given.get(part))


def _also(proof: Proof) -> str:
    """What the same change does to the plain decoder."""
    return f", {proof.control[1].loss:.3f} with the same change" if proof.control is not None else ""


def thinner(exchange: Exchange, between: Gap) -> Draft:
    """A warning: a plain decoder is better, and no change inside the model says why."""
    own, plain = exchange.own, exchange.runs[ALL]
    return warning(
        "behind-reference",
        f"a plain decoder of this size reaches a held-out loss of {plain.loss:.3f} where this model reaches "
        f"{own.loss:.3f} after {own.updates} updates on the same batches",
        fix="compare the model's code with a plain decoder's, block by block, unless it is meant to be thinner",
        where=Site(part="model"),
        **_evidence(exchange, own, plain, between),
    )


def ahead(exchange: Exchange, between: Gap, make) -> Draft:
    """The model is better than a plain decoder can be, by one and the same step."""
    own, plain = exchange.runs[LOSS], exchange.runs[ALL]
    return make(
        "ahead-of-reference",
        f"by a plain step this model reaches a held-out loss of {own.loss:.3f} after {own.updates} updates where a "
        f"plain decoder of this size reaches {plain.loss:.3f} on the same batches",
        fix="look for a way by which later tokens reach earlier places; an honest model seldom gains so much",
        where=Site(part="model"),
        **_evidence(exchange, own, plain, between),
    )


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
