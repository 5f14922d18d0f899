"""Many arrays as few: a collective costs a round trip, however small its array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

T = TypeVar("T")

BUCKET = 32 << 20  # bytes of one call: few calls, and at most this much memory beside the arrays


def in_buckets(tree: T, collective: Callable[[mx.array], mx.array]) -> T:
    """Apply ``collective`` to flat arrays of about `BUCKET` bytes that hold all leaves of one type side by side."""
    names, leaves = zip(*tree_flatten(tree), strict=True)
    found: list[Any] = [None] * len(leaves)
    for bucket in _buckets(names, leaves):
        joined = collective(mx.concatenate([leaves[i].reshape(-1) for i in bucket]))
        ends = np.cumsum([leaves[i].size for i in bucket])[:-1].tolist()
        for i, part in zip(bucket, mx.split(joined, ends), strict=True):
            found[i] = part.reshape(leaves[i].shape)
    return tree_unflatten(list(zip(names, found, strict=True)))


def _buckets(names: Sequence[str], leaves: Sequence[mx.array]) -> list[list[int]]:
    """Indices of the leaves, by type and, within it, by name until a bucket is full: a tree that was loaded from a
    file has its leaves in another order."""
    full: list[list[int]] = []
    open_: dict[mx.Dtype, tuple[list[int], int]] = {}
    for index in sorted(range(len(leaves)), key=names.__getitem__):
        leaf = leaves[index]
        bucket, nbytes = open_.get(leaf.dtype, ([], 0))
        if bucket and nbytes + leaf.nbytes > BUCKET:
            full.append(bucket)
            bucket, nbytes = [], 0
        bucket.append(index)
        open_[leaf.dtype] = (bucket, nbytes + leaf.nbytes)
    return full + [bucket for bucket, _ in open_.values()]
