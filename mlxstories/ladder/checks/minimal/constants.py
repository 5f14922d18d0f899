"""Whether the optimiser's constants lie where optimisers work."""

from __future__ import annotations

from mlxstories.findings.limits import BLUNTS, OUT_OF_ORDER, REMEMBERS
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.constants import Constants, constants, gradient_entry
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed


@check(
    "the optimiser's constants",
    rung="minimal",
    causes=("extreme-constants",),
    needs=("optimizer",),
    unless=("not-finite", "no-update"),
    memory=OUT_OF_ORDER,
    momentum=REMEMBERS,
    eps=BLUNTS,
)
def constants_are_usual(bench: Bench, limits: Gauges) -> Verdict:
    """Reads betas, epsilon, momentum and weight decay of MLX's optimisers and their kin.

    Adam needs beta1² < sqrt(beta2) (Kingma and Ba 2015, section 4): else its numerator remembers longer than its
    denominator. A momentum or beta1 near 1 sums hundreds of updates, and turns too late. An epsilon far above the
    gradient makes it plain SGD with a tiny rate; a negative weight decay lets weights grow for ever.

    Example: `AdamW(1e-3, betas=[0.999, 0.9])`.

    Fix: betas 0.9 and 0.95 to 0.999, an epsilon of 1e-8, a momentum of 0.9 to 0.99, a decay from 0 to 0.1.
    """
    for part in constants(bench):
        draft = _judge(part, gradient_entry(bench), limits)
        if draft is not None:
            return failed(draft.message, draft)
    return passed()


def _judge(part: Constants, entry: float | None, limits: Gauges) -> Draft | None:
    if part.weight_decay is not None and part.weight_decay < 0:
        told = f"weight decay is {part.weight_decay:g}: weights grow at every step"
        return _draft(part, told, "a weight decay from 0 to 0.1")
    if part.beta1 is not None and part.beta2 and limits.memory.above(part.beta1**2 / part.beta2**0.5):
        swapped = ", as if given in the wrong order" if part.beta1 > part.beta2 else ""
        told = (
            f"betas are {part.beta1:g} and {part.beta2:g}{swapped}: the mean of the gradients remembers longer than "
            "that of their squares"
        )
        return _draft(part, told, "betas of 0.9 and 0.95 to 0.999")
    for name, kept in (("momentum", part.momentum), ("beta1", part.beta1)):
        if kept is not None and limits.momentum.above(kept):
            told = f"{name} is {kept:g}: every update is the sum of hundreds of gradients"
            return _draft(part, told, f"a {name} of 0.9 to 0.99")
    if part.eps is not None and entry and limits.eps.above(part.eps / entry):
        told = (
            f"epsilon, {part.eps:g}, is {part.eps / entry:.0f} times the gradient's entries: it is practically all "
            "that they are divided by"
        )
        return _draft(part, told, "an epsilon of 1e-8")
    return None


def _draft(part: Constants, told: str, usual: str) -> Draft:
    known = {name: value for name, value in vars(part).items() if isinstance(value, float)}
    return error(
        "extreme-constants", f"{part.name}'s {told}", fix=f"take {usual}", where="optimizer", **known
    )
