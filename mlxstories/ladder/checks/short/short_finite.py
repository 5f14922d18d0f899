"""Does a short real training stay finite?"""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.training.short import baselines, short_training, slower
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import ANY, check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed


@check("stays finite", rung="short", causes=("learning-rate-too-large", "not-finite"), unless=ANY)
def stays_finite(bench: Bench, limits: Gauges) -> Verdict:
    """Trains for some dozens of steps on fresh batches, and again at a tenth of the learning rate where the loss
    turns NaN or infinite: then either the rate is to blame or the arithmetic.

    A loss that is not a number once is not a number for ever; nothing after that step is training.

    Example: SGD at a rate of 10; a log of a probability that reaches 0.

    Fix: lower the rate tenfold where that helps, else look for a division by 0, a log of 0 or a float16 overflow.
    """
    short = short_training(bench)
    figure = _figure(bench)
    if short.finished:
        return passed(f"{short.steps} steps", short=figure)
    return failed(f"not after {len(short.trial.losses)} steps", _blame(bench), short=figure)


def _figure(bench: Bench) -> dict:
    short, counted = short_training(bench), baselines(bench)
    return {
        "points": short.trial.points,
        "losses": short.trial.losses,
        "unigram": counted.unigram,
        "bigram": counted.bigram,
        "floor": bench.subject.floor,
    }


def _blame(bench: Bench) -> Draft:
    peak, taken, other = bench.schedule.peak, len(short_training(bench).trial.losses), slower(bench)
    message = f"the loss is not finite after {taken} steps of real training"
    evidence = {"steps": taken, "learning_rate": peak}
    if other.points and other.finite:
        return error(
            "learning-rate-too-large",
            f"{message}; at a tenth of the learning rate it reaches {other.end:.2f} nats",
            fix=f"lower the learning rate to about {peak / 10:.2g}"
            if peak
            else "make the steps ten times smaller",
            where="optimizer",
            **evidence,
        )
    return error(
        "not-finite",
        message,
        fix="look for a division by 0, a log of 0 or a float16 overflow",
        where="model",
        **evidence,
    )
