"""TRANSITIONAL: what the untrained model sees, and its gradients; the rest of the rung are checks."""

from __future__ import annotations

from mlxstories.findings import ERROR
from mlxstories.ladder import gradients
from mlxstories.ladder.causality import Dependence, dependence, loss_sees_future, matrix
from mlxstories.ladder.examination import Examination

_LOUD = 8.0
_BLIND = 1e-5  # change of a logit, relative to the logits' spread, that counts as none


def climb(exam: Examination, *, quick: bool = False) -> None:
    """Check the untrained model; ``quick`` takes only a few forward passes."""
    if exam.has("token-out-of-range", "not-finite"):
        return
    _sight(exam, quick=quick)
    if not quick:
        gradients.examine(exam, exam.sample.rows(slice(0, min(8, exam.sample.shape[0]))))


# --- what the model sees -------------------------------------------------------------------------


def _sight(exam: Examination, *, quick: bool) -> None:
    plain = exam.model()
    views = [("at initialisation", dependence(exam, plain, seed=1))]
    # Zero-initialised projections hide a leak, and make healthy models look blind, until they are moved.
    noisy = [exam.noisy(seed) for seed in range(1 if quick else 2)]
    views += [
        ("with noise on the weights", dependence(exam, model, seed=2 + i)) for i, model in enumerate(noisy)
    ]
    if not quick:
        views += [("in training mode", dependence(exam, noisy[-1], seed=1, training=True))]
    judge_leaks(exam, views)
    _judge_blindness(exam, [view for name, view in views if name == "with noise on the weights"])
    if not exam.has("future-leak", "batch-leak") and exam.subject.loss is not None:
        seen = loss_sees_future(exam, noisy[0])
        if seen is not None and seen > 1e-3:
            exam.found(
                "future-leak",
                ERROR,
                f"the loss over a prefix changes by {seen:.1%} when only later inputs change: the loss calls the "
                "model without its causal mask",
                fix="let loss and model(tokens) use the same causal mask",
                where="loss",
                relative_change=seen,
            )
    if not quick:
        exam.rung.figures["causality"] = matrix(exam, noisy[0])


def judge_leaks(exam: Examination, views: list[tuple[str, Dependence]]) -> None:
    """Findings of leaks from later tokens and from other rows."""
    usable = [(name, view) for name, view in views if view.repeatable]
    if not usable:
        exam.check("sees no later token", None, "the same input gives different logits each time")
        return
    name, worst = max(usable, key=lambda item: item[1].rows)
    leaks = worst.rows > worst.tolerance
    exam.check("rows are independent", not leaks, f"{worst.rows:.1e} relative change")
    if leaks:
        exam.found(
            "batch-leak",
            ERROR,
            f"a row's logits move by {_share(worst.rows)} when only other rows of the batch change ({name})",
            fix="normalise and attend within a row: no BatchNorm, no reshape or mean that mixes B and T",
            where="model",
            relative_change=worst.rows,
            tolerance=worst.tolerance,
        )
    name, worst = max(usable, key=lambda item: item[1].future)
    leaks = worst.future > worst.tolerance
    exam.check("sees no later token", not leaks, f"{worst.future:.1e} relative change")
    if leaks:
        reader, changed = worst.future_at
        exam.found(
            "future-leak",
            ERROR,
            f"the logits at position {reader} move by {_share(worst.future)} when only tokens from position "
            f"{changed} on change ({name}): the model sees what it has to predict",
            fix="mask attention with nn.MultiHeadAttention.create_additive_causal_mask(T) or mask='causal', pad "
            "convolutions on the left only, and pool or normalise over no later position",
            where="model",
            relative_change=worst.future,
            reader=reader,
            first_changed=changed,
            tolerance=worst.tolerance,
        )


def _share(value: float) -> str:
    return f"{value:.0%} of the change" if value >= 0.01 else f"{value:.1e} of the change"


def _judge_blindness(exam: Examination, views: list[Dependence]) -> None:
    views = [view for view in views if view.repeatable]
    if not views:
        exam.check("sees the tokens", None, "the same input gives different logits each time")
        return
    own, past, order = (max(getattr(view, name) for view in views) for name in ("own", "past", "order"))
    if own < _BLIND or past < _BLIND:
        loud = dependence(exam, exam.noisy(21, amount=_LOUD), seed=5)
        if not (loud.own <= _BLIND or loud.past <= _BLIND):  # overflow is a sign of life too
            exam.check("sees the tokens", False, "only with far larger weights")
            exam.found(
                "vanishing-gradient",
                ERROR,
                f"the signal dies out on the way: the last logits move by {max(own, past):.1e} of their spread when "
                "tokens change, and only much larger weights bring it back",
                fix="add residual connections and normalisation between the blocks, and avoid saturating activations",
                where="model",
                change_by_last_token=own,
                change_by_earlier_tokens=past,
            )
            return
        what = (
            "any token"
            if own < _BLIND and past < _BLIND
            else "the last token"
            if own < _BLIND
            else "earlier tokens"
        )
        exam.check("sees the tokens", False, f"ignores {what}")
        exam.found(
            "input-blind",
            ERROR,
            f"changing {what} moves no logit at the end of the row, even with noise on all weights",
            fix="follow the tokens through the model: an embedding that is not used, a mask that hides too much, "
            "an output taken from the wrong place",
            where="model",
            change_by_last_token=own,
            change_by_earlier_tokens=past,
        )
        return
    exam.check("sees the tokens", True)
    blind = order < _BLIND
    exam.check("sees their order", not blind, f"{order:.1e} relative change")
    if blind:
        exam.found(
            "position-blind",
            ERROR,
            "the last logits do not move when earlier tokens change places: the model sees a bag of words",
            fix="add positions to the embeddings or the attention (RoPE, learned or sinusoidal)",
            where="model",
            change_by_order=order,
        )
