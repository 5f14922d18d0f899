"""Whether attention, norms and the residual stream start at a scale that can learn."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.block_input import stream_start, token_share
from mlxstories.ladder.bench.model.forward_pass import forward_pass
from mlxstories.ladder.bench.model.module_response import degrees
from mlxstories.ladder.bench.model.untrained import first_answer
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "scales inside the model",
    rung="init",
    causes=("extreme-scale",),
    unless=("token-out-of-range", "not-finite"),
    scores=Limit(3.0, "standard deviation of attention scores over rows"),
    knows=Limit(0.5, "nats below guessing"),
    degree=Limit(1.5, "power of a norm's input"),
    stream=Limit(4.0, "root mean square of what enters the first block"),
    added=Limit(0.1, "of it, added by a block"),
    loud=Limit(100.0, "root mean square of what a block adds"),
)
def scales(bench: Bench, limits: Gauges) -> Verdict:
    """Watches a forward pass of the untrained model from inside: how far attention scores spread, with which power
    the output of each norm grows with its input, how large the stream is that the blocks add to, and what they add.

    A softmax over scores that spread by five attends to one token, chosen at random, and passes on next to no
    gradient. A norm takes the scale out of what it is given; one that squares it makes large what is large.
    Example: scores multiplied by `sqrt(d)` instead of divided; `x / mx.rsqrt(...)`; an embedding of N(0, 1) that is
    multiplied by `sqrt(width)` besides.
    Fix: divide scores by the root of the head's width; multiply by `rsqrt`; start embeddings at 1 / sqrt(width) where
    they are multiplied.
    """
    watched, powers, start = forward_pass(bench), degrees(bench), stream_start(bench)
    spread = watched.scores
    detail = f"scores spread by {spread:.2g}" if spread else "no scores are seen"
    answer = first_answer(bench)
    pretrained = limits.knows.above(answer.expected - answer.loss)
    if limits.scores.above(spread) and not pretrained:
        return failed(detail, _saturated(spread, watched.attention or "model"))
    squaring = {path: power for path, power in powers.items() if limits.degree.above(power)}
    if squaring:
        path, power = next(iter(squaring.items()))
        return failed(f"{path} grows with the power {power:.1f} of its input", _squaring(squaring))
    if start and limits.loud.above(start.added * start.stream) and not pretrained:
        return failed(f"{start.loudest} adds {start.added:.3g} times the stream", _loud(start))
    if start and limits.stream.above(start.stream) and limits.added.below(start.added):
        return passed(f"no block adds more than {start.added:.1%} of the stream", _drowned(start))
    return passed(detail)


def _saturated(spread: float, where: str):
    return error(
        "extreme-scale",
        f"attention scores of the untrained model spread by {spread:.1f} from row to row, where about 0.3 to 1 is "
        "usual: the softmax attends to single tokens, chosen at random, and passes on next to no gradient",
        fix="divide the scores by the root of the head's width, once, and look for a scale that is the inverse of the "
        "one meant",
        where=where,
        spread=spread,
    )


def _squaring(squaring: dict[str, float]):
    path, power = next(iter(squaring.items()))
    return error(
        "extreme-scale",
        f"what {path} gives grows with the power {power:.1f} of what it is given, where a norm takes the scale out: "
        "large activations grow from layer to layer and small ones vanish",
        fix="multiply by mx.rsqrt(mean square), or divide by its root; not both",
        where=path,
        power=power,
        modules=list(squaring),
    )


def _loud(start):
    return error(
        "extreme-scale",
        f"in the untrained model {start.loudest} adds values with a root mean square of "
        f"{start.added * start.stream:.3g} to a stream of {start.stream:.2g}: beside them nothing else is heard, and "
        "the blocks before it learn next to nothing",
        fix="look for a multiplication where a division was meant, a sum where a mean was meant, or an inverted scale",
        where=start.loudest,
        added=start.added * start.stream,
        stream=start.stream,
    )


def _drowned(start):
    return warning(
        "extreme-scale",
        f"what enters {start.where} has a root mean square of {start.stream:.1f}, and no block adds more than "
        f"{start.added:.1%} of that: what the blocks compute is lost beside the embedding",
        fix="start the embedding at 1 / sqrt(width) where it is multiplied by sqrt(width), or leave the factor out",
        where=start.where,
        stream=start.stream,
        added=start.added,
    )


@check(
    "tokens are not drowned by positions",
    rung="init",
    causes=("extreme-scale",),
    unless=("token-out-of-range", "not-finite", "input-blind"),
    tokens=Limit(0.02, "of the variance of what enters the first block"),
)
def tokens_heard(bench: Bench, limits: Gauges) -> Verdict:
    """Looks how much of what enters the first block of the untrained model differs from row to row at one place, where
    tokens differ and positions do not.

    What says where a token stands, and is many times as large as what says which it is, is most of what the blocks
    see at first, and slows learning.
    Example: sines of size 1 on embeddings of N(0, 0.02); a table of positions that was forgotten when the other one was
    made smaller.
    Fix: start both at one size, or multiply the tokens' by `sqrt(width)`.
    """
    told = token_share(bench)
    if told is None:
        return skipped("no numbered blocks, or too few rows that differ")
    detail = f"{told.tokens:.0%} of what enters {told.entered} is the tokens'"
    if not limits.tokens.below(told.tokens):
        return passed(detail)
    return passed(
        detail,
        warning(
            "extreme-scale",
            f"only {told.tokens:.1%} of the variance of what enters {told.entered} comes from the tokens: what says "
            "where a token stands is far larger than what says which token it is",
            fix="start the embeddings of tokens and positions at one size, or multiply the tokens' by sqrt(width)",
            where=told.table or told.entered,
            tokens=told.tokens,
        ),
    )
