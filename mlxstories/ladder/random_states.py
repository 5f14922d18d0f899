"""The random states of Python, NumPy and MLX, saved and restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np


def random_key() -> np.ndarray:
    """MLX's random state."""
    return np.array(mx.random.state[0])  # type: ignore[index]  # a list, of which the stubs know nothing


def put_random_key(key: np.ndarray) -> None:
    """Restore a state of `random_key`."""
    high, low = (int(part) for part in key)
    mx.random.seed((high << 32) | low)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Random states as before, whatever is drawn inside."""
    kept = random.getstate(), np.random.get_state(), random_key()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        put_random_key(kept[2])
