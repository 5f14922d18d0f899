"""Whether a model is its parameters, and its parameters are weights."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.buffers import buffers
from mlxstories.ladder.bench.model.consistency import transplanted
from mlxstories.ladder.bench.model.hidden_parameters import hidden_parameters
from mlxstories.ladder.checks.init import leaks
from mlxstories.ladder.checks.init.consistency import LIMITS, tolerance
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, warning


@check(
    "the parameters are the model",
    rung="init",
    causes=("hidden-parameters",),
    unless=("token-out-of-range", "not-finite", "not-repeatable"),
    **LIMITS,
)
def all_parameters(bench: Bench, limits: Gauges) -> Verdict:
    """Loads all parameters of one fresh model into another and compares what they say of a row. Where there is one
    model alone, as in a script, looks for layers that it computes with and that are not among its parameters.

    Random weights that the model keeps outside of `parameters()` are neither trained nor saved: a checkpoint restores
    another model.
    Example: layers in a plain object that is no `nn.Module`, or an array in an attribute with a leading underscore.
    Fix: keep layers as attributes, lists or dicts of an `nn.Module`.
    """
    found = transplanted(bench)
    if found is None:
        return _listed(bench, limits)
    change, full_precision = found
    moved = change.judged(full_precision)
    detail = f"{moved:.1e} of the logits' spread"
    if not tolerance(limits, full_precision).above(moved):
        return passed(detail)
    return failed(
        detail,
        error(
            "hidden-parameters",
            f"a second model loaded with all parameters of the first gives logits that differ by {moved:.1e} of their "
            "spread: random weights lie outside of parameters(), where they are neither trained nor saved",
            fix=_KEEP,
            where="model",
            change=moved,
        ),
    )


_KEEP = (
    "keep layers as attributes, lists or dicts of an nn.Module, not in plain objects, tuples, closures or attributes "
    "that begin with an underscore"
)


def _listed(bench: Bench, limits: Gauges) -> Verdict:
    """Of the one model that there is, the layers that it computes with and that are none of its parameters; those
    that were loaded or trained elsewhere may be meant to stay as they are."""
    found = hidden_parameters(bench)
    if found is None:
        return passed("of the one model, no layer is outside of parameters()")
    moved = found.change.judged(found.full_precision)
    detail = f"{len(found.names)} arrays outside, {moved:.1e} of the logits' spread"
    if not tolerance(limits, found.full_precision).above(moved):
        return passed(detail)
    first, *more = sorted(found.names)
    draft = (error if found.drawn else warning)(
        "hidden-parameters",
        f"{first}{f' and {len(more)} more' if more else ''} are weights that the logits depend on, and lie outside of "
        "parameters(), where they are neither trained nor saved",
        fix=_KEEP,
        where=first,
        change=moved,
    )
    return failed(detail, draft) if found.drawn else passed(detail, draft)


@check(
    "masks are not trained",
    rung="init",
    causes=("buffer-trained",),
    unless=("token-out-of-range", "not-finite", "not-repeatable", "batch-leak", "future-leak"),
    effect=Limit(1e-2, "of the logits' spread"),
    **leaks.LIMITS,
)
def buffers_stay(bench: Bench, limits: Gauges) -> Verdict:
    """Looks for masks, and tables of bool or integers, among the trainable parameters, takes three training steps
    where there are any, and looks whether they moved and what that did.

    MLX takes every array in an attribute for a parameter. The first update turns a boolean mask into numbers, which
    attention adds to its scores: the future opens, the loss falls, and what the model writes is worthless.
    Example: `self.mask = mx.tril(mx.ones((T, T), dtype=mx.bool_))`.
    Fix: `self._mask = ...`: attributes that begin with an underscore are not parameters; or `freeze(keys=["mask"])`.
    """
    found = buffers(bench)
    if found is None or not found.moved:
        return passed("" if found is None else "no training step moves them")
    name, how = next(iter(found.moved.items()))
    opens = (limits.rounding if found.full_precision else limits.coarse_rounding).above(found.future)
    broken = opens or (found.whole and limits.effect.above(found.effect))
    what = (
        ": later tokens now move earlier logits"
        if opens
        else f": the logits differ by {found.effect:.1e} of their spread from those with the original"
    )
    more = f" (and {len(found.moved) - 1} more like it)" if len(found.moved) > 1 else ""
    last = name.split(".")[-1]
    draft = (error if broken else warning)(
        "buffer-trained",
        f"{name}{more} is a mask or table, no weight, but MLX counts it among the trainable parameters, and three "
        f"training steps change it {how}{what}",
        fix=f"name it _{last}, for attributes that begin with an underscore are not parameters, or "
        f'freeze(keys=["{last}"], recurse=False) its module',
        where=name,
        moved=found.moved,
        later_tokens=found.future,
        effect=found.effect,
    )
    detail = f"{name} moves {how}"
    return failed(detail, draft) if broken else passed(detail, draft)
