"""Whether bits per byte, or per character, are what the loss makes of the text."""

from __future__ import annotations

import math
import re

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.evaluation import TextSizes, evaluated_twice, own_figures, text_sizes
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped, warning

_BITS = re.compile(r"bits?[ _-]?(?:per|/)[ _-]?(byte|char)|(?<![a-z])bp([bc])(?![a-z])", re.I)


@check(
    "bits per byte go with the loss",
    rung="trained",
    causes=("metric-mismatch",),
    needs=("evaluate", "val_batches", "tokenizer"),
    unless=("metric-mismatch", "stale-computation", "evaluation-changes-state", "tokenizer-mismatch"),
    apart=Limit(0.2, "of the figure"),
    close=Limit(0.05, "of another figure"),
    exact=Limit(0.01, "of that with spaces twice"),
    seldom=Limit(0.05, "spaces a byte"),
)
def bits(bench: Bench, limits: Gauges) -> Verdict:
    """Decodes the targets of the subject's own validation batches, counts their bytes and characters, and divides
    the bits of the loss by them: is that what ``evaluate`` reports under a name like bits_per_byte, bpb or bpc?

    The figure is there to compare tokenizers. One of nats, or per token, compares nothing.

    Example: `{"bits_per_byte": loss / log(2)}`, which is bits per token; a table of the tokens' bytes that has the
    space before a word, and a byte more for each word when they are added up.

    Fix: nats of all tokens, over log 2 and over the bytes of the text that they stand for.
    """
    reported = evaluated_twice(bench).first.values
    if not any(_unit(name) for name in reported):
        return skipped("evaluate reports none")
    own, sizes = own_figures(bench), text_sizes(bench)
    if own is None or sizes is None:
        return skipped("nothing counts in any batch of validation")
    named = [(name, kind) for name in own.values if (kind := _unit(name))]
    if min(sizes.byte, sizes.character, own.mean) <= 0:
        return skipped("its targets stand for no text, or it is certain of them")
    for name, kind in named:
        value, right = own.values[name], own.mean / math.log(2) / getattr(sizes, kind)
        if limits.apart.above(abs(value / right - 1)) or _spaces_twice(value, right, sizes, limits):
            return failed(f"{name} differs", _draft(value, own.mean, name, kind, sizes, limits))
    return passed(", ".join(name for name, _ in named))


def _spaces_twice(value: float, right: float, sizes: TextSizes, limits: Gauges) -> bool:
    """Whether the value is the right one, but for bytes among which spaces count twice."""
    spaces = sizes.space / sizes.byte
    return limits.seldom.above(spaces) and limits.exact.below(abs(value * (1 + spaces) / right - 1))


def _unit(name: str) -> str:
    """What a figure of this name is per: "byte", "character", or nothing."""
    found = _BITS.search(name)
    if found is None:
        return ""
    letter = next(group for group in found.groups() if group)[0].lower()
    return "byte" if letter == "b" else "character"


def _draft(value: float, mean: float, name: str, kind: str, sizes: TextSizes, limits: Gauges) -> Draft:
    another = "byte" if kind == "character" else "character"
    bits, size = mean / math.log(2), getattr(sizes, kind)
    ways = {
        "bits per token": bits,
        "nats per token": mean,
        f"nats per {kind}": mean / size,
        f"bits per {another}": bits / getattr(sizes, another),
    }
    way = next((way for way, right in ways.items() if limits.close.below(abs(value / right - 1))), None)
    if _spaces_twice(value, bits / size, sizes, limits):
        way = "that of text whose spaces count twice"
    wrong = way and not way.startswith("bits")  # bits of another unit may be meant
    return (error if wrong else warning)(
        "metric-mismatch",
        f"the validation reports {name} {value:.4g}, and its loss of {mean:.4g} nats per token makes "
        f"{bits / size:.4g} bits per {kind}" + (f": what it reports is {way}" if way else ""),
        fix=f"divide the nats of all real tokens by log 2 and by the {kind}s of the text that they stand for",
        where="evaluate",
        reported=value,
        recomputed=bits / size,
        units_per_token=size,
    )
