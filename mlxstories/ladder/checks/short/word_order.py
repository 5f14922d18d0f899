"""Does the order of the words tell anything, where the source says that it should?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.short import baselines, short_training
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the words are in order",
    rung="short",
    causes=("no-better-than-unigram",),
    needs=("floor",),
    unless=ANY,
    certain=Limit(0.1, "nats below word frequencies, or a margin"),
    foreseeable=Limit(0.5, "nats from word frequencies to the floor"),
    order=Limit(0.1, "of the way from word frequencies to the floor"),
)
def words_in_order(bench: Bench, limits: Gauges) -> Verdict:
    """Counts how far pairs, repeats and recall of words, and a short training, get from word frequencies towards
    the source's known entropy.

    Where none gets anywhere, the batches hold the right words in no order: only their frequencies can be learned.

    Example: words shuffled within each story, an augmentation left on.

    Fix: look at a few batches, decoded.
    """
    short, counted, floor = short_training(bench), baselines(bench), bench.subject.floor
    way = counted.unigram - floor
    if limits.foreseeable.below(way):
        return skipped(f"word frequencies alone come within {way:.2f} nats of the floor")
    if ahead(bench, limits):
        return passed("training is below word frequencies")
    told = (counted.unigram - min(counted.best, short.loss)) / way
    if limits.order.above(told):
        return passed(f"{told:.0%} of the way from word frequencies to the floor")
    cause = error(
        "no-better-than-unigram",
        f"the token before tells nothing of the next: pairs of words reach {counted.bigram:.2f} nats, word "
        f"frequencies alone {counted.unigram:.2f}, where the source's entropy is {floor:.2f}; {short.steps} steps of "
        f"training stand at {short.loss:.2f} ± {short.margin:.2f}",
        fix="look at the batches: the order of the words was lost on the way",
        where="train_batches",
        loss=short.loss,
        margin=short.margin,
        unigram=counted.unigram,
        bigram=counted.bigram,
        floor=floor,
    )
    return failed(f"pairs reach {counted.bigram:.2f} nats, single words {counted.unigram:.2f}", cause)


def ahead(bench: Bench, limits: Gauges) -> bool:
    """Whether the short training is below word frequencies by more than chance would have it."""
    short = short_training(bench)
    gain = baselines(bench).unigram - short.loss
    return limits.certain.above(gain) or gain > short.margin
