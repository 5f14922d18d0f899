"""Whether what the loss leaves out as padding is a token of the texts."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.loss.ignored_ids import ignored_ids
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped


@check(
    "the loss leaves out no token of the texts",
    rung="init",
    causes=("wrong-loss",),
    needs=("tokenizer", "train_texts"),
    unless=(
        "token-out-of-range",
        "not-finite",
        "loss-sign",
        "double-softmax",
        "tokenizer-mismatch",
        "targets-mismatched",
        "targets-not-shifted",
    ),
    share=Limit(0.01, "of the tokens within the texts"),
    most=Limit(0.5, "of the ids that were tried"),
)
def leaves_out_no_token(bench: Bench, limits: Gauges) -> Verdict:
    """Puts the commonest ids of the texts in the place of targets, each at two places, and takes the gradient of the
    loss with respect to logits: is there an id that it never asks for, as it does with padding?

    An id that is left out is never predicted, and where validation leaves it out too, no figure shows it.
    Example: `ignore_index=0`, "padding by convention", of a vocabulary in which 0 is the blank or the newline.
    Fix: give padding an id of its own, or mask by length.
    """
    found = ignored_ids(bench)
    if found is None:
        return skipped("the loss needs more of a model than its logits, or is the default")
    share = sum(found.shares.values())
    detail = f"{len(found.shares)} of {found.tried} ids are left out, {share:.1%} of the texts"
    if not limits.share.above(share) or limits.most.above(len(found.shares) / found.tried):
        return passed(detail)
    token = max(found.shares, key=found.shares.__getitem__)
    written = str(bench.subject.tokenizer.decode([token]))
    return failed(
        detail,
        error(
            "wrong-loss",
            f"the loss leaves out id {token} wherever it is the target, as if it were padding, and the tokenizer "
            f"writes it for {written!r}, which is {found.shares[token]:.1%} of the texts: the model never learns to "
            "predict it",
            fix="give padding an id that no text has, or mask by length and not by id",
            where="loss" if bench.subject.loss is not None else "train_step",
            tokens=sorted(found.shares),
            share=share,
        ),
    )
