"""Whether an epoch reads texts of one kind first, and of another later or never."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import distinct, rolling
from mlxstories.ladder.bench.data.texts import spread
from mlxstories.ladder.bench.epochs import train_epoch

_LENGTH = 12  # tokens by which a text is known
_TEXTS = 256  # that are looked at, spread over all
_SHUFFLES = 100


@dataclass(frozen=True)
class Kinds:
    """The texts that an epoch reads first, and those that it reads later, half of them each; where it was not read to
    its end, those not met count as late.

    Attributes:
        apart: half the sum of what the shares of ids differ by between both halves, beyond what it is between halves
            drawn at random.
        deviations: that in standard deviations of such draws.
        texts: that were looked at.
        unread: share of those searched that the epoch did not hold, as far as it was read.
    """

    apart: float
    deviations: float
    texts: int
    unread: float


@measurement
def kinds(bench: Bench) -> Kinds | None:
    """Order texts by the batch that first holds a stretch of theirs, and compare what the halves are made of; None
    where batches hold none, or one."""
    texts, places = _read(bench, [ids for ids in spread(bench, _TEXTS) if len(ids) >= _LENGTH])
    read = np.isfinite(places)
    if not read.any():
        return None
    unread = 1 - float(read.mean())
    if train_epoch(bench).complete:  # what is missing was cut by the end of a row, and comes at no time
        texts, places = [text for text, there in zip(texts, read, strict=True) if there], places[read]
    if len(texts) < 2:
        return None
    rng = np.random.default_rng(bench.seed)
    first = np.argsort(places + rng.random(len(texts)) / 2, kind="stable")  # ties by chance
    size = 1 + max(int(ids.max()) for ids in texts)
    shares = np.stack([np.bincount(ids, minlength=size) / len(ids) for ids in texts])

    def apart(order: np.ndarray) -> float:
        halves = (shares[half].mean(0) for half in np.array_split(order, 2))
        return float(np.abs(np.subtract(*halves)).sum() / 2)

    chance = [apart(rng.permutation(len(texts))) for _ in range(_SHUFFLES)]
    beyond = apart(first) - float(np.mean(chance))
    return Kinds(beyond, beyond / max(float(np.std(chance)), 1e-12), len(texts), unread)


def _read(bench: Bench, texts: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The texts that have a stretch of their own, and the number of the first batch that holds one such stretch;
    infinite where none does. By any of its stretches a long text would be found before a short one."""
    if not texts:
        return [], np.empty(0)
    hashes = [rolling(ids[None], _LENGTH)[0] for ids in texts]
    owners = np.repeat(np.arange(len(texts)), [len(h) for h in hashes])
    known, first, counts = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    known, first = known[counts == 1], first[counts == 1]
    if not len(known):
        return [], np.empty(0)
    told, one = np.unique(owners[first], return_index=True)  # of the lowest hash: as good as by chance
    known = known[one]
    order = np.argsort(known)
    places = np.full(len(told), np.inf)
    for number, batch in enumerate(train_epoch(bench).batches):
        held = distinct(rolling(batch.tokens, _LENGTH))
        at = order[np.minimum(np.searchsorted(known, held, sorter=order), len(order) - 1)]
        here = at[known[at] == held]
        places[here] = np.minimum(places[here], number)
    return [texts[i] for i in told], places
