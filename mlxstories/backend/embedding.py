"""Rows of a matrix by number, with a gradient that repeats bit for bit on a GPU too.

MLX's own gradient of such a lookup adds rows into one another by a scatter. A CPU adds them in order; a GPU does it
with float atomics, in the order in which its threads happen to come, so that two equal steps differ in the last bits.
"""

from __future__ import annotations

import mlx.core as mx

from mlxstories.backend import kernels

# Elements of the one-hot matrix up to which its product is taken. On an M1 Max's data sheet (10.4 TFLOP/s, 400 GB/s)
# the product of this size takes about as long as sorting 4096 tokens of width 256; computed, not measured.
ONE_HOT = 1 << 23

_AT_ONCE = 8  # rows, itself included, that one takes in a pass: `mx.compile` makes one kernel of so many


def repeatable(rows: mx.array, weight: mx.array, tokens: mx.array) -> mx.array:
    """``rows``, with a gradient that repeats on the device in use.

    Args:
        rows: [..., D], ``weight[tokens]``.
        weight: [V, D].
        tokens: int [...] in [0, V).
    """
    return rows if kernels.on_cpu() else ordered(mx.stop_gradient(rows), weight, tokens)


@mx.custom_function
def ordered(rows: mx.array, weight: mx.array, tokens: mx.array) -> mx.array:
    """``rows``, whose gradient by ``weight`` has one order of summation on every device."""
    return rows


@ordered.vjp
def _gradient(primals, cotangent, _output):
    rows, weight, tokens = primals
    flat, numbers = cotangent.reshape(-1, cotangent.shape[-1]), tokens.reshape(-1)
    few = len(weight) * len(numbers) <= ONE_HOT
    summed = (_by_product if few else _by_sorting)(flat, numbers, len(weight))
    return mx.zeros_like(rows), summed.astype(weight.dtype), mx.zeros_like(tokens)


def _by_product(rows: mx.array, numbers: mx.array, count: int) -> mx.array:
    """Sums [count, D] of the ``rows`` [N, D] that have the same one of ``numbers`` [N]: a one-hot matrix times them."""
    chosen = mx.arange(count, dtype=numbers.dtype)[:, None] == numbers
    return chosen.astype(rows.dtype) @ rows


def _by_sorting(rows: mx.array, numbers: mx.array, count: int) -> mx.array:
    """As `_by_product`, in ``log N`` passes (Hillis and Steele 1986): sorted by number, each row takes in those 1, 2,
    ... 7 before it, then 8, 16, ... 56, as far as they have the same number, and the last of each number then holds the
    sum."""
    order = mx.argsort(numbers)
    numbers, sums = numbers[order], rows[order].astype(mx.float32)
    length, reach = len(numbers), 1
    room = ((length, 0), (0, 0))  # for those before the first
    own, theirs = numbers[:, None], mx.pad(numbers[:, None], room, constant_values=-1)
    while reach < length:
        earlier = mx.pad(sums, room)
        for back in range(reach, min(length, _AT_ONCE * reach), reach):
            there = slice(length - back, 2 * length - back)
            # as wide as the rows before they are compared, or it would be a kernel of its own
            same = mx.equal(*(mx.broadcast_to(part, sums.shape) for part in (theirs[there], own)))
            sums = sums + mx.where(same, earlier[there], 0)
        reach *= _AT_ONCE
    last = mx.concatenate([numbers[1:] != numbers[:-1], mx.array([True])])
    # Each number is written once, so no order matters; all other rows go to the place behind, which nobody reads.
    places = mx.full(count + 1, length, dtype=mx.int32)
    places[mx.where(last, numbers, count)] = mx.arange(length, dtype=mx.int32)
    places = places[:count, None]
    return mx.where(places < length, sums[mx.minimum(places[:, 0], length - 1)], 0)
