"""Whether gradients reach every block, and none is far too large."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.gradients import Followed, followed, is_block
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, skipped


@check(
    "gradient sizes",
    rung="init",
    causes=("vanishing-gradient", "exploding-gradient"),
    unless=("token-out-of-range", "not-finite", "vanishing-gradient"),
    vanishing=Limit(1e-5, "of the strongest block's gradient norm"),
    nothing=Limit(1e-7, "gradient norm"),
    exploding=Limit(1e3, "gradient norm"),
)
def gradient_sizes(bench: Bench, limits: Gauges) -> Verdict:
    """Compares the gradient norms of the blocks with each other, and the whole with what is usual.

    A block whose gradient is a hundred-thousandth of another's does not learn; a norm in the thousands means that
    the first steps throw the weights about.
    Example: eight layers of `sigmoid(linear(x))` without residual connections.
    Fix: residual connections and normalisation, initial weights near 0.02 or 1/sqrt(fan in).
    """
    found = followed(bench)
    if not found.shapes:
        return skipped("no trainable parameters")
    groups = found.groups
    drafts = [*_vanishing(found, groups, limits), *_exploding(found, groups, limits)]
    detail = f"norm {found.total:.2g}"
    return failed(detail, *drafts, blocks=groups) if drafts else passed(detail, blocks=groups)


def _vanishing(found: Followed, groups: dict[str, float], limits: Gauges) -> list[Draft]:
    strongest = max(groups.values(), default=0.0)
    if not strongest:
        return []
    ratios = {g: v / strongest for g, v in groups.items() if v and found.holds_matrix(g)}
    weakest = min(ratios, key=ratios.get, default=None)
    weak = weakest is not None and limits.vanishing.below(ratios[weakest])
    if not weak and not limits.nothing.below(max(found.total, strongest)):
        return []
    where = weakest if weak else next((g for g in groups if is_block(g)), next(iter(groups)))
    return [
        error(
            "vanishing-gradient",
            f"the gradient of {where} is {groups[where]:.1e}, {groups[where] / strongest:.0e} of the strongest part's",
            fix="add residual connections or normalisation, replace saturating activations, and check the scale of "
            "the initial weights",
            where=where,
            gradient_norms=groups,
        )
    ]


def _exploding(found: Followed, groups: dict[str, float], limits: Gauges) -> list[Draft]:
    if not limits.exploding.above(found.total):
        return []
    where = max(groups, key=groups.get)
    return [
        error(
            "exploding-gradient",
            f"the untrained model's gradient norm is {found.total:.2g}, most of it in {where}; healthy ones are "
            "near 1",
            fix="normalise before each block and initialise with a standard deviation near 0.02 or 1/sqrt(fan in)",
            where=where,
            gradient_norm=found.total,
            gradient_norms=groups,
        )
    ]
