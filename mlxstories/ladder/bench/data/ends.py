"""What stands at the end of a text in its row, and whether that is a target that counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epochs import train_epoch

END_NAMES = ("eos_token_id", "eos_id", "eot_id", "end_id")
_BATCHES = 64


@dataclass(frozen=True)
class Ends:
    """The masked tails of the first epoch's rows.

    Attributes:
        rows: how many have a masked tail of two or more cells after real ones; a single one may cut a text that goes
            on.
        share: of all rows.
        first: the commonest target right after the last real one.
        first_share: of those rows.
        fill: the commonest target of the rest of the tails.
        last: the commonest last real target of those rows.
        last_share: share of those rows that end with it.
        beyond: share of those rows whose last real target is the fill, after the end token that the tokenizer names.
        real: ids among the real targets.
        eos: the end token that the tokenizer names, if any.
    """

    rows: int
    share: float
    first: int
    first_share: float
    fill: int
    last: int
    last_share: float
    beyond: float
    real: frozenset[int]
    eos: int | None


@measurement
def ends(bench: Bench) -> Ends | None:
    """Look at the rows whose mask ends before they do; None where there are none."""
    first: Counter[int] = Counter()
    last: Counter[int] = Counter()
    rest: Counter[int] = Counter()
    before: Counter[tuple[int, int]] = Counter()
    real: set[int] = set()
    every = 0
    for batch in train_epoch(bench).batches[:_BATCHES]:
        every += batch.shape[0]
        real |= set(np.unique(batch.targets[batch.mask > 0]).tolist())
        for targets, mask in zip(batch.targets, batch.mask > 0, strict=True):
            places = np.flatnonzero(mask)
            if len(places) and places[-1] + 2 < len(targets):
                last[int(targets[places[-1]])] += 1
                before[int(targets[places[-1] - 1]), int(targets[places[-1]])] += places[-1] > 0
                first[int(targets[places[-1] + 1])] += 1
                rest.update(targets[places[-1] + 2 :].tolist())
    rows = sum(first.values())
    if not rows:
        return None
    token, count = first.most_common(1)[0]
    fill, eos = rest.most_common(1)[0][0], end_token(bench)
    ending, endings = last.most_common(1)[0]
    return Ends(
        rows,
        rows / every,
        token,
        count / rows,
        fill,
        ending,
        endings / rows,
        0.0 if eos is None or eos == fill else before[eos, fill] / rows,
        frozenset(real),
        eos,
    )


def end_token(bench: Bench) -> int | None:
    """The id of the end token that the tokenizer names, if any."""
    found = (getattr(bench.subject.tokenizer, name, None) for name in END_NAMES)
    return next((int(value) for value in found if isinstance(value, (int, np.integer))), None)
