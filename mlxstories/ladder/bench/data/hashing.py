"""Hashes of windows of ids, and which of them are in a known set."""

from __future__ import annotations

import numpy as np

_BASE, _FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(1_000_003)


def rolling(ids: np.ndarray, length: int) -> np.ndarray:
    """A hash of every window of ``length`` ids along the rows; uint64 [R, T - length + 1], empty for shorter rows."""
    out = np.zeros((ids.shape[0], max(0, ids.shape[1] - length + 1)), dtype=np.uint64)
    for offset in range(length):
        out = followed(out, ids[:, offset : offset + out.shape[1]])
    return out


def followed(hashes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The hashes of windows that are one id longer: of these windows and the ids behind them, of the same shape."""
    with np.errstate(over="ignore"):
        mixed = (ids.astype(np.uint64) + np.uint64(1)) * _BASE
        mixed ^= mixed >> np.uint64(29)
        return hashes * _FACTOR + mixed


def distinct(hashes: np.ndarray) -> np.ndarray:
    """Each hash once, in ascending order; `np.unique`, which fills a table, takes 40 times as long for 400,000."""
    ordered = np.sort(hashes, axis=None)
    return ordered[np.diff(ordered, prepend=~ordered[:1]) != 0]  # the first differs from its complement


def among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which hashes are among the known ones; bool of the hashes' shape. As `np.isin`, without its `np.unique`."""
    known = distinct(known)
    if not len(known):
        return np.zeros(hashes.shape, bool)
    return known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
