"""Whether training and validation ask the model the same question."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.evaluation.train_and_eval import train_and_eval_losses
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "training and validation call the model alike",
    rung="trained",
    causes=("wrong-loss",),
    needs=("loss", "evaluate"),
    unless=(
        *("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak", "wrong-loss"),
        *("loss-sign", "double-softmax", "targets-mismatched", "targets-not-shifted"),
        *("wrong-normalisation", "padding-in-loss", "metric-mismatch", "smoothed-validation-loss"),
        *("stale-computation", "evaluation-changes-state", "dropout-in-evaluation", "padding-in-accuracy"),
    ),
    apart=Limit(0.02, "of the loss"),
)
def called_alike(bench: Bench, limits: Gauges) -> Verdict:
    """Where the training loss makes a plain mean cross-entropy of logits: asks it and ``evaluate`` about the same rows,
    with the same weights, dropout off.

    Where they differ, and by another amount for other targets, it is the model that was called otherwise: with
    positions, masks or flags that the other call leaves out. What is trained then is not what is validated, and
    decodes.
    Example: `model(x, positions=...)` in the loss, with positions that are wrong, and `model(x)` in validation.
    Fix: call the model in one function, for training, validation and decoding.
    """
    found = train_and_eval_losses(bench)
    if found is None:
        return skipped("the loss is no plain cross-entropy of logits, or cannot be asked the same")
    apart = min(abs(found.trained - found.validated), found.apart) / max(abs(found.validated), 1e-9)
    detail = f"{found.trained:.4f} and {found.validated:.4f} nats"
    if not limits.apart.above(apart):
        return passed(detail)
    return failed(
        detail,
        error(
            "wrong-loss",
            f"of the same rows and weights, dropout off, the training loss says {found.trained:.4f} nats and "
            f"validation {found.validated:.4f}, though both take the mean cross-entropy: training calls the model with "
            "something that validation leaves out, positions or a mask say, or the other way round",
            fix="compare the two calls of the model, argument by argument, and let one function make both",
            where="loss",
            trained=found.trained,
            validated=found.validated,
        ),
    )
