"""Whether the tokenizer knows the words of the stories."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.tokens import unknown
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed, skipped, warning


@check(
    "unknown words",
    rung="data",
    causes=("high-unknown-rate",),
    needs=("tokenizer",),
    unless=("token-out-of-range",),
    quick=True,
    some=Limit(0.03, "of the real targets"),
    many=Limit(0.10, "of the real targets"),
)
def unknown_words(bench: Bench, limits: Gauges) -> Verdict:
    """Encodes signs that no story holds; where all become one id, counts that id among the real targets of training and
    validation.

    The unknown token is the easiest of all to predict: loss and accuracy look good on text that has lost its words.
    Example: a vocabulary of 60 words, or one that was trained on other stories.
    Fix: train the tokenizer on these stories with a larger vocabulary, or use subwords.
    """
    found = unknown(bench)
    if found is None:
        return skipped("the tokenizer has no unknown id")
    detail = f"{found.share:.1%}"
    if limits.some.below(found.share):
        return passed(detail)
    many = not limits.many.below(found.share)
    draft = (error if many else warning)(
        "high-unknown-rate",
        f"{found.share:.1%} of the tokens are the unknown token, id {found.token}: predicting it is easy and says "
        "nothing",
        fix="train the tokenizer on these stories with a larger vocabulary, or use subwords",
        where="tokenizer",
        share=found.share,
        unknown_id=found.token,
    )
    return failed(detail, draft) if many else passed(detail, draft)
