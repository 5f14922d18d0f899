"""Rows from all training texts, where batches go round and round a part of them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.data.coverage import coverage
from mlxstories.ladder.bench.data.hashing import among, rolling
from mlxstories.ladder.bench.data.texts import encoded
from mlxstories.ladder.bench.epochs import val_epoch
from mlxstories.ladder.exchange.material import STRETCH, material

_LITTLE = (
    0.15  # of the texts' stretches in two epochs: a setup that reads a quarter gains too, and may mean to
)
_SAME = 0.02  # of them, new in the second epoch
_TOKENS = 400_000  # that are cut into rows


@measurement
def rows_of_all_texts(bench: Bench) -> list | None:
    """As many batches as the exchange trains on, of stretches of all training texts; None where every epoch brings new
    texts, a fair part of them is seen, or it cannot be told. Nothing that is held out is among them."""
    subject = bench.subject
    if subject.tokenizer is None or not subject.train_texts or val_epoch(bench) is None:
        return None
    seen = coverage(bench)
    if seen is None or seen.both > _LITTLE or seen.both - seen.first > _SAME:
        return None
    found = material(bench)
    like = found.epoch[0]
    height, width = Counter(batch.shape for batch in found.epoch).most_common(1)[0][0]
    rows = _cut(bench, width + 1)
    if width < STRETCH or not len(rows):
        return None
    rows = rows[~among(rolling(rows, STRETCH), rolling(found.held.tokens, STRETCH)).any(1)]
    if len(rows) < height:
        return None
    rng = np.random.default_rng((bench.seed, 59))
    order = np.concatenate(
        [rng.permutation(len(rows)) for _ in range(height * found.updates // len(rows) + 1)]
    )
    ones = np.ones((height, width), np.float32)
    return [
        like.with_(inputs=rows[chosen, :-1], targets=rows[chosen, 1:], mask=ones)
        for chosen in order[: height * found.updates].reshape(found.updates, height)
    ]


def _cut(bench: Bench, width: int) -> np.ndarray:
    """Stretches of texts spread over all of them, int [R, width]; what is left at the end of a text is dropped."""
    texts, cut, taken = bench.subject.train_texts, [], 0
    order = np.random.default_rng((bench.seed, 61)).permutation(len(texts))
    for ids in encoded(bench, (texts[int(number)] for number in order)):
        whole = len(ids) // width
        cut.append(ids[: whole * width].reshape(whole, width))
        taken += whole * width
        if taken > _TOKENS:
            break
    return np.concatenate(cut) if cut else np.empty((0, width), np.int64)
