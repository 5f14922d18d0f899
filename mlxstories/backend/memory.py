"""The memory of this machine, and what does not fit into it, said before it is asked for."""

from __future__ import annotations

import os

import mlx.core as mx

from mlxstories.errors import StoriesError


def machine_memory() -> int:
    """Bytes that the device of MLX can use: those of a GPU, else those of the machine."""
    return mx.device_info().get("memory_size") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
