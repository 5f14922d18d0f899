"""Arrays of one shape stacked into one, so that a GPU starts one kernel for all of them instead of one for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx

from mlxstories.backend import kernels


def alike(arrays: Sequence[mx.array]) -> list[list[int]]:
    """The indices of the arrays, grouped by shape and type."""
    groups: dict[tuple, list[int]] = {}
    for index, array in enumerate(arrays):
        groups.setdefault((array.shape, array.dtype), []).append(index)
    return list(groups.values())


def stacks(arrays: Sequence[mx.array]) -> Iterator[tuple[list[int], mx.array]]:
    """Groups of indices, each with its arrays stacked as [n, ...]; a stack has at most `kernels.chunk_elements`
    numbers."""
    for indices in alike(arrays):
        most = max(1, kernels.chunk_elements() // max(1, arrays[indices[0]].size))
        for start in range(0, len(indices), most):
            part = indices[start : start + most]
            first, *more = (arrays[i] for i in part)
            yield part, mx.stack([first, *more]) if more else first[None]
