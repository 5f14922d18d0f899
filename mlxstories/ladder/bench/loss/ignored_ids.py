"""Ids of the texts that the loss leaves out wherever they are the target."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.texts import spread
from mlxstories.ladder.bench.data.tokens import unknown_id
from mlxstories.ladder.bench.loss.convention import gradient_at
from mlxstories.ladder.bench.samples import sample

_TEXTS = 64  # that are encoded, spread over all
_ROWS, _LENGTH = 4, 64  # of the cells in which the commonest ids are tried


@dataclass(frozen=True)
class IgnoredIds:
    """Ids that the loss leaves out.

    Attributes:
        shares: share of each id in the tokens of the texts, not counting their ends.
        tried: how many ids were.
    """

    shares: dict[int, float]
    tried: int


@measurement
def ignored_ids(bench: Bench) -> IgnoredIds | None:
    """Try the commonest ids of the texts as targets, each at two places; None where the loss needs more of a model than
    logits. The id for unknown words may be left out."""
    if bench.minimises_ours:
        return None
    counts = _inner_ids(bench)
    batch = sample(bench).rows(slice(0, _ROWS)).cut(_LENGTH)
    real = batch.mask > 0
    ids = [token for token, _ in counts.most_common(int(real.sum()) // 2)]
    if not ids:
        return None
    asked: Counter[int] = Counter()
    for turn in (0, len(ids) // 2 or 1):
        tried = np.resize(np.roll(ids, turn), int(real.sum()))
        targets = batch.targets.copy()
        targets[real] = tried
        gradient = gradient_at(bench, batch.with_(targets=targets))
        if gradient is None:
            return None
        asked.update(tried[np.abs(gradient).max(-1)[real] > 0].tolist())
    total, unknown = sum(counts.values()), unknown_id(bench)
    return IgnoredIds({i: counts[i] / total for i in ids if not asked[i] and i != unknown}, len(ids))


def _inner_ids(bench: Bench) -> Counter[int]:
    """How often the tokenizer writes each id within the texts; marks and padding stand at their ends."""
    found: Counter[int] = Counter()
    for text in spread(bench, _TEXTS):
        ids = text.tolist()
        ends = set(ids[:1] + ids[-1:])
        inner = [place for place, token in enumerate(ids) if token not in ends]
        found.update(ids[inner[0] : inner[-1] + 1] if inner else ())
    return found
