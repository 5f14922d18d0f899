"""Does greedy text run into a loop?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.generation.decoding import decoding
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, note, passed, skipped


@check(
    "greedy text does not loop",
    rung="trained",
    causes=("repetition-loop",),
    needs=("generate",),
    same=Limit(8, "times one token at the end"),
)
def no_loop(bench: Bench, limits: Gauges) -> Verdict:
    """Looks at the first continuation of the model that memorised a few stories, or of an untrained one.

    Always taking the likeliest token, a model that has not learned much repeats one for ever.

    Example: "the the the the".

    Fix: train longer; sample with a temperature and top-k or nucleus.
    """
    found = decoding(bench).continuations
    if not found:
        return skipped("generate returned no token")
    last = next(c for c in found if c.model == found[-1].model)
    if limits.same.below(last.last_run):
        return passed()
    loop = note(
        "repetition-loop",
        f"greedy text ends in one token, id {last.tokens[-1]}, again and again",
        fix="sample with a temperature and top-k or nucleus, and train longer",
        where="generate",
        token=last.tokens[-1],
    )
    return passed(f"token {last.tokens[-1]} again and again", loop)
