"""Is greedy decoding the model's own choice, token by token?"""

from __future__ import annotations

from dataclasses import dataclass

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.generation.cached import cached_steps
from mlxstories.ladder.bench.generation.decoding import Continuation, decoding
from mlxstories.ladder.bench.model.consistency import plain
from mlxstories.ladder.checks.trained.cached import Words, in_words
from mlxstories.ladder.limits import Gauge, Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "generation is the argmax",
    rung="trained",
    causes=("cache-mismatch", "generation-mismatch"),
    needs=("generate",),
    tie=Limit(1e-3, "of the logits' spread"),
    coarse_tie=Limit(0.2, "of the logits' spread, with weights of 16 bits"),
    apart=Limit(0.05, "of the logits' spread"),
    coarse_apart=Limit(0.5, "of the logits' spread, with weights of 16 bits"),
    left=Limit(0.2, "of a change, after an exchange"),
)
def greedy(bench: Bench, limits: Gauges) -> Verdict:
    """Continues a few prompts with models whose choices vary, and holds each new token against the argmax of a full
    forward pass over everything before it; choices that are all but tied may go either way.

    Where the first token is right and later ones are not, the cached step computes something else than the model.
    Then a row is read through the cache, as a prompt and token by token, with the positions of the full pass, and with
    one token after the other exchanged: what makes the logits those of the full pass, or what they do not depend on,
    is told.

    Example: a rotary offset that forgets the prompt; a prompt read into the cache without a mask; a temperature.

    Fix: offset = tokens already cached; a causal mask for the prompt, too; the argmax of ``logits[:, -1]`` in
    evaluation mode.
    """
    found = decoding(bench)
    if found.silent:
        return failed("no token", _silent())
    if not found.continuations:
        return skipped("generate returned no token")
    tally = _count(found.continuations, limits.tie if plain(bench).full_precision else limits.coarse_tie)
    detail = f"{tally.wrong} of {tally.firsts + tally.laters} tokens differ"
    if found.repeats and not tally.wrong:
        return passed(detail)
    if not found.repeats:
        return failed(f"{detail}, and others the second time", _blame(tally, False, None))
    return failed(detail, _blame(tally, True, _explained(bench, tally, limits)))


def _explained(bench: Bench, tally: _Tally, limits: Gauges) -> Words | None:
    """What the cached pass does otherwise; where first tokens are wrong too, only if it is its logits that are."""
    found, apart = cached_steps(bench), limits.apart if plain(bench).full_precision else limits.coarse_apart
    if found is None or (tally.first_wrong and not apart.above(found.within)):
        return None
    return in_words(found, apart, limits.left)


def _silent() -> Draft:
    return error(
        "generation-mismatch",
        "generate returns no token for any prompt, where the model's own choices are different tokens",
        fix="return the new tokens, as many as are asked for; the token that ends a text may be the last",
        where="generate",
    )


@dataclass(frozen=True)
class _Tally:
    firsts: int
    first_wrong: int
    laters: int
    later_wrong: int
    example: dict

    @property
    def wrong(self) -> int:
        return self.first_wrong + self.later_wrong


def _count(continuations: list[Continuation], tie: Gauge) -> _Tally:
    # Below, not above: logits that are not numbers choose nothing.
    right = [[not behind or tie.below(behind) for behind in c.behind] for c in continuations]
    example = next((_example(c, r) for c, r in zip(continuations, right, strict=True) if not all(r)), {})
    later = [verdict for verdicts in right for verdict in verdicts[1:]]
    return _Tally(
        firsts=len(right),
        first_wrong=sum(not verdicts[0] for verdicts in right),
        laters=len(later),
        later_wrong=later.count(False),
        example=example,
    )


def _example(continuation: Continuation, right: list[bool]) -> dict:
    return {
        "model": continuation.model,
        "first_difference_at": right.index(False),
        "prompt": continuation.prompt,
        "generated": continuation.tokens,
    }


def _blame(tally: _Tally, repeats: bool, cached: Words | None) -> Draft:
    evidence = {
        "first_tokens": tally.firsts,
        "first_tokens_wrong": tally.first_wrong,
        "later_tokens": tally.laters,
        "later_tokens_wrong": tally.later_wrong,
        "repeatable": repeats,
        **tally.example,
    }
    if cached:
        return error(
            "cache-mismatch",
            f"{tally.wrong} of {tally.firsts + tally.laters} decoded tokens are not the model's own choice for that "
            f"prefix: {cached.told}",
            fix=cached.fix,
            where="model" if cached.evidence.get("part") == "model" else "generate",
            **evidence,
            **cached.evidence,
        )
    if repeats and not tally.first_wrong:
        return error(
            "cache-mismatch",
            f"decoding starts right, then {tally.later_wrong} of {tally.laters} later tokens are not the model's own "
            "choice for that prefix: the cached step computes something else than the full forward pass",
            fix="check positions (offset = tokens already cached), the order of keys and values, that the cache holds "
            "each token once, and any other state that goes from token to token (a shift, a convolution)",
            where="generate",
            **evidence,
        )
    return error(
        "generation-mismatch",
        f"{tally.first_wrong} of {tally.firsts} first tokens and {tally.later_wrong} of {tally.laters} later ones are "
        "not the model's argmax" + ("" if repeats else "; the same prompt continues differently each time"),
        fix="take logits[:, -1] of the model in evaluation mode, and its argmax, without temperature or penalties",
        where="generate",
        **evidence,
    )
