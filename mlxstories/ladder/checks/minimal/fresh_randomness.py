"""Whether dropout draws anew in every training step."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.randomness import step_losses_by_seed
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the step draws new random numbers",
    rung="minimal",
    causes=("frozen-randomness",),
    needs=("train_step",),
    unless=("not-finite", "no-update", "not-repeatable", "stale-computation", "gradient-mismatch"),
)
def draws_anew(bench: Bench, limits: Gauges) -> Verdict:
    """Where the model is random in training mode: takes the same step after different seeds, with the same weights.

    `mx.compile` bakes in the random state that it finds, unless it is listed: the same units are dropped at every
    step, and the others never learn to do without.
    Example: `mx.compile(step, inputs=[model.state, optimizer.state])` of a model with dropout.
    Fix: add `mx.random.state` to inputs and outputs.
    """
    losses = step_losses_by_seed(bench)
    if losses is None:
        return skipped("nothing in the model is random")
    if len(set(losses)) > 1:
        return passed(f"{len(set(losses))} losses for {len(losses)} seeds")
    return failed(
        "one loss for all seeds",
        error(
            "frozen-randomness",
            f"the model is random in training mode, but the step's loss is {losses[0]:.6g} after each of {len(losses)} "
            "seeds: it draws the same numbers at every call, or is not in training mode",
            fix="list mx.random.state among the inputs and outputs of mx.compile; call model.train() before the step",
            where="train_step",
            loss=losses[0],
        ),
    )
