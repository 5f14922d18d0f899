"""The memory of this machine, and what does not fit into it, said before it is asked for."""

from __future__ import annotations

import os

import mlx.core as mx

from mlxstories.errors import StoriesError


def machine_memory() -> int:
    """Bytes that the device of MLX can use: those of a GPU, else those of the machine."""
    return mx.device_info().get("memory_size") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def bound() -> None:
    """On Metal, keep what is used resident, and let MLX's cache of freed buffers hold a quarter of what the system
    recommends: an update frees what the next one takes, and only evaluation and decoding bring other shapes, while
    MLX's own bound is above all of the memory that other programs share. Elsewhere MLX's bounds stay."""
    if working_set := mx.device_info().get("max_recommended_working_set_size"):
        mx.set_wired_limit(working_set)  # of no effect before macOS 15
        mx.set_cache_limit(working_set // 4)


def require(needed: int, what: str, cure: str) -> None:
    """Refuse what needs more than there is.

    Args:
        needed: bytes at the least, so that nothing is refused which would fit.

    Raises:
        StoriesError: there is less.
    """
    if needed > (there := machine_memory()):
        raise StoriesError(
            f"{what} takes at least {needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{there / 2**30:,.1f} GiB: {cure}."
        )
