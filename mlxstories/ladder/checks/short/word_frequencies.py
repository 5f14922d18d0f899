"""Is a short real training better than word frequencies, and if not, why?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.short import (
    ShortTraining,
    baselines,
    known_loss,
    known_unigram,
    longer,
    short_training,
    slower,
)
from mlxstories.ladder.checks.short.overstepping import far_better, too_large
from mlxstories.ladder.checks.short.word_order import ahead
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, note, passed, skipped, warning


@check(
    "better than word frequencies",
    rung="short",
    causes=("overfitting", "learning-rate-too-large", "no-better-than-unigram"),
    unless=ANY,
    certain=Limit(0.1, "nats below word frequencies, or a margin"),
    by_heart=Limit(0.3, "nats below word frequencies"),
    falling=Limit(0.03, "nats in the second half"),
    gain=Limit(0.3, "nats"),
    margins=Limit(2, "margins"),
    order=Limit(0.25, "nats from word frequencies to the best count"),
    close=Limit(0.05, "nats"),
)
def better_than_frequencies(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the held-out loss of a short real training with that of guessing by word frequencies. Where it is
    not below: are the training rows learned by heart, does a tenth of the rate do far better, does it fall on?
    An error only after three times as many steps, and where counts of pairs prove that there is more to learn.

    A model that learns frequencies alone does not look at the words before.

    Example: dropout of 0.9; attention that sees other rows' tokens; inputs of other rows.

    Fix: look for what hides the previous tokens from the model.
    """
    short = short_training(bench)
    if ahead(bench, limits):
        return passed(_detail(bench, short))
    return _by_heart(bench, short, limits) or _too_bold(bench, short, limits) or _flat(bench, short, limits)


def _detail(bench: Bench, short: ShortTraining) -> str:
    counted = baselines(bench)
    rows = "held out" if short.apart else "on rows that it trained on, for want of others,"
    return (
        f"{rows} {short.loss:.2f} ± {short.margin:.2f} nats, {short.accuracy:.1%} after {short.steps} steps; "
        f"unigram {counted.unigram:.2f}, bigram {counted.bigram:.2f}"
    )


def _evidence(bench: Bench, short: ShortTraining) -> dict:
    counted = baselines(bench)
    return {
        "loss": short.loss,
        "margin": short.margin,
        "unigram": counted.unigram,
        "bigram": counted.bigram,
        "steps": short.steps,
    }


def _by_heart(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict | None:
    known, easy, unigram = known_loss(bench), known_unigram(bench), baselines(bench).unigram
    if not limits.by_heart.above(easy - known):
        return None
    updates = bench.subject.updates
    if updates is not None and updates < short.steps:  # its own run ends before
        detail = f"{_detail(bench, short)}; the run's {updates} updates may not learn its rows by heart"
        return skipped(detail)
    finding = warning(
        "overfitting",
        f"after {short.steps} steps training rows cost {known:.2f} nats where word frequencies cost {easy:.2f}, "
        f"held-out rows {short.loss:.2f} where these cost {unigram:.2f}: the rows are learned by heart",
        fix="use more stories, fewer epochs or dropout",
        where="train_batches",
        train_loss=known,
        **_evidence(bench, short),
    )
    return skipped(f"{_detail(bench, short)}; {known:.2f} on training rows", finding)


def _too_bold(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict | None:
    loss, other = short.loss, slower(bench).end
    if not far_better(short, loss, other, limits) or limits.falling.above(short.fell):
        return None
    cause = too_large(bench, other, _evidence(bench, short))
    return failed(f"{loss:.2f} nats, {other:.2f} at a tenth of the rate", cause)


def _flat(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict:
    counted, detail = baselines(bench), _detail(bench, short)
    told = counted.unigram - counted.best
    if not limits.order.above(told) or told <= limits.margins.value * short.margin:
        return skipped(f"{detail}; counts of pairs do hardly better than frequencies")
    if limits.falling.above(short.fell):
        return skipped(detail, _still_falling(bench, short))
    return _after_longer(bench, short, limits)


def _still_falling(bench: Bench, short: ShortTraining) -> Draft:
    return note(
        "no-better-than-unigram",
        f"after {short.steps} steps the loss, {short.loss:.2f} ± {short.margin:.2f} nats, is not clearly below that of "
        f"word frequencies ({baselines(bench).unigram:.2f}) but still falling",
        fix="train longer, or try a larger learning rate",
        loss_at_a_tenth_of_the_rate=slower(bench).end,
        **_evidence(bench, short),
    )


def _after_longer(bench: Bench, short: ShortTraining, limits: Gauges) -> Verdict:
    """Before an accusation, three times as long."""
    counted, detail, trial = baselines(bench), _detail(bench, short), longer(bench)
    steps, final = len(trial.losses), trial.end
    better = min(short.loss, counted.unigram) - final
    detail = f"{detail}; {final:.2f} after {steps} steps"
    if limits.close.above(better):
        return passed(detail)
    cause = error(
        "no-better-than-unigram",
        f"after {steps} steps of real training the loss stands at {final:.2f} ± {short.margin:.2f} nats, where word "
        f"frequencies alone give {counted.unigram:.2f} and pairs of words {counted.bigram:.2f}",
        fix="look for what hides the previous tokens from the model: dropout, attention, inputs of other rows",
        where="model",
        loss_at_a_tenth_of_the_rate=slower(bench).end,
        **{**_evidence(bench, short), "loss": final, "steps": steps},
    )
    return failed(detail, cause)
