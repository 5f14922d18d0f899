"""Whether a fresh model is put together as it is meant: dropout, adapters, tied weights."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.modules import adapters, dropouts, second_tables
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, warning

_UNLESS = ("token-out-of-range", "not-finite")


@check(
    "dropout leaves enough",
    rung="init",
    causes=("dropout-too-high",),
    unless=_UNLESS,
    most=Limit(0.7, "of the activations taken away"),
    high=Limit(0.5, "of the activations taken away"),
)
def dropout(bench: Bench, limits: Gauges) -> Verdict:
    """Reads the share that each `nn.Dropout` drops.

    `nn.Dropout(p)` drops the share p; it does not keep it. With nine tenths gone, a model learns little more than
    frequencies.
    Example: `nn.Dropout(0.9)` by someone for whom 0.9 is kept.
    Fix: `nn.Dropout(0.1)`, or 0.
    """
    shares = dropouts(bench)
    if not shares:
        return passed("none")
    path = max(shares, key=shares.get)
    detail = f"{shares[path]:.0%} is taken away at most"
    if not limits.high.above(shares[path]):
        return passed(detail)
    bad = limits.most.above(shares[path])
    draft = (error if bad else warning)(
        "dropout-too-high",
        f"{path} takes away {shares[path]:.0%} of its activations at each step: nn.Dropout(p) drops p, and keeps 1 - p",
        fix=f"nn.Dropout({1 - shares[path]:.2g}), if {shares[path]:.0%} was to be kept; 0 to 0.2 is usual",
        where=path,
        dropped=shares[path],
    )
    return failed(detail, draft) if bad else passed(detail, draft)


@check(
    "the base of adapters is frozen",
    rung="init",
    causes=("base-not-frozen",),
    unless=_UNLESS,
    base=Limit(1.0, "trainable weights of the base for one of the adapters"),
)
def base(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for low-rank pairs beside layers whose full matrices are trained as well.

    Adapters are there to leave the base as it is; where it is trained too, memory is that of full training, and what
    the base knew is overwritten at the adapters' rate.
    Example: an adapter resumed from a file without `model.freeze()` before it.
    Fix: `model.freeze()` before the adapters are attached.
    """
    found = adapters(bench)
    if found is None or not found.where:
        return passed("no adapters" if found is None else f"{found.pairs} pairs on a frozen base")
    share = found.base / max(1, found.adapted)
    if not limits.base.above(share):
        return passed(f"{found.pairs} pairs")
    return passed(
        f"{found.where} is not",
        warning(
            "base-not-frozen",
            f"{found.pairs} low-rank pairs are attached, and the layers that they adapt are trained beside them: "
            f"{found.base / (found.base + found.adapted):.0%} of the trainable weights are the base's",
            fix="call model.freeze() before the adapters are attached",
            where=found.where,
            base=found.base,
            adapters=found.adapted,
        ),
    )


@check("tied weights are one", rung="init", causes=("tie-broken",), unless=_UNLESS)
def tied(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for the embedding's numbers in a second trainable matrix of the fresh model.

    `self.head.weight = self.embedding.weight` shares a tensor in PyTorch. In MLX both are parameters, and part at the
    first update: the model has more weights than it is taken for, and a checkpoint of a tied model is another model.
    A warning, since it need not cost anything: two public trainings ended within 1 % with and without.
    Example: the line above, taken over from PyTorch.
    Fix: `self.embedding.as_linear(x)`, without a head.
    """
    pairs = second_tables(bench)
    if not pairs:
        return passed()
    one, other = pairs[0]
    return passed(
        f"{one} and {other} are two",
        warning(
            "tie-broken",
            f"{one} and {other} start with the same numbers, and are two parameters: tied in PyTorch, they part "
            "here at the first update",
            fix="leave the head out, and call embedding.as_linear(x)",
            where=other,
            pair=[one, other],
        ),
    )
