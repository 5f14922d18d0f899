"""The one place that knows which device it runs on.

MLX's CPU ``exp`` takes 12 ns an element and is most of a small model's training step. A polynomial made of
multiplications and additions is vectorised by the compiled loop and takes 1 ns, so softmax and the
activations are built on it there. A GPU has fast exponentials and fused attention, which are used as they
are.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from mlxstories.backend import blas, compiler, memory

_SMALL = 4096  # elements, for which a polynomial's several loops cost more than they save


_as_on_gpu = False


def on_cpu() -> bool:
    return mx.default_device().type == mx.cpu and not _as_on_gpu


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Take a GPU's branches wherever this is, to examine them."""
    global _as_on_gpu
    before, _as_on_gpu = _as_on_gpu, True
    try:
        yield
    finally:
        _as_on_gpu = before


@functools.cache
def prepare() -> None:
    """Make MLX fast, once a process: a step, an evaluation, decoding and the ladder begin with it, so that a process
    that only imports the package is left as it is."""
    blas.install()
    memory.bound()
    if on_cpu():
        compiler.make_ready()
        # MLX hands out at most so many operations breadth first before it goes deep, and so leaves one of two
        # streams waiting for the other. A step with two took 1180 ms, and takes 720.
        os.environ.setdefault("MLX_BFS_MAX_WIDTH", "100")


def try_compiling() -> None:
    """Compile a small kernel, so that what MLX lacks for it is said before anything is begun.

    Raises:
        RuntimeError: of MLX; on a CPU there is no compiler, or no temporary directory to compile in.
    """
    if on_cpu():
        compiler.make_ready()
    mx.eval(mx.compile(lambda x: mx.abs(x) * x + 1)(mx.ones(2)))


def compiles_anew() -> bool:
    """Whether MLX has yet to compile each kernel, which on a CPU it does once for each user."""
    return on_cpu() and compiler.is_new()


def chunk_elements() -> int:
    """Logits to handle at once: what a CPU's cache holds, or enough to fill a GPU."""
    return 1 << 21 if on_cpu() else 1 << 25


def copies_pay() -> bool:
    """Whether putting arrays side by side costs less than a start of each kernel for every one of them."""
    return not on_cpu()


def streams() -> list[mx.Stream]:
    """Where parts of a batch run at the same time: a CPU stream is one thread, a GPU needs no help."""
    if not on_cpu():
        return [mx.default_stream(mx.default_device())]
    if not hasattr(_own, "streams"):  # a stream belongs to the thread that made it
        more = [mx.new_stream(mx.cpu) for _ in range(_cores() // _processes - 1)]
        _own.streams = [mx.default_stream(mx.cpu), *more]
    return _own.streams


_own = threading.local()
_processes = 1


def share_cores(processes: int) -> None:
    """Take only a part of the cores, because so many processes run at once; to be said before any work."""
    global _processes
    _processes = processes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def before_next_step(token: mx.array) -> mx.array:
    """What decoding last chose, when the next step may be started: on a CPU when it is there, because a step under
    way holds on to the cache, which the next one then copies instead of updating; on a GPU, fed ahead, at once."""
    if on_cpu():
        mx.eval(token)
    return token


# expm1(y) / y = 1 + _EXPM1[0] y + ... within 1.5e-8 for y in [0, 0.34], in powers of x = -256 y
_EXPM1 = [c / (-256) ** n for n, c in enumerate((1, 0.4999986, 0.16670714, 0.04130731, 0.00957071))]


def exp_nonpositive(x: mx.array) -> mx.array:
    """``exp(x)`` for float32 x <= 0, within ``5e-7 (1 + |x|)`` relative; 0 where float32 has no exp(x).

    The series of expm1(-x / 2^8), six times ``q <- q (2 + q)``, which leads from expm1(y) to expm1(2y), two
    squarings, and the reciprocal. Every term of a sum has one sign, so nothing cancels, and a very negative x
    becomes infinite and then 0. The order is that of the shortest chain of dependent operations, since
    ``mx.compile`` cuts a kernel after 11 of them: this makes two.
    """
    if not on_cpu() or x.size <= _SMALL:
        return mx.exp(x)
    square = x * x
    series = (_EXPM1[0] + _EXPM1[1] * x) + square * ((_EXPM1[2] + _EXPM1[3] * x) + _EXPM1[4] * square)
    q = x * (-1 / 256) * series
    for _ in range(6):
        q = q * (2 + q)
    power = 1 / (1 + q)
    power = power * power
    return power * power


def sigmoid(x: mx.array) -> mx.array:
    """``1 / (1 + exp(-x))``, elementwise, float32."""
    if not on_cpu() or x.size <= _SMALL:
        return mx.sigmoid(x)
    small = exp_nonpositive(-mx.abs(x))
    return mx.where(x >= 0, 1.0, small) / (1 + small)


@mx.custom_function
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``, elementwise (Shazeer 2020)."""
    wide = gate.astype(mx.float32)
    return (wide * sigmoid(wide) * up).astype(gate.dtype)


@swiglu.vjp
def _swiglu_gradient(primals, cotangent, _output):
    gate, up = primals
    wide = gate.astype(mx.float32)
    share = sigmoid(wide)
    by_gate = cotangent * up * share * (1 + wide * (1 - share))
    return by_gate.astype(gate.dtype), (cotangent * wide * share).astype(up.dtype)


_GELU = 1.5957691216057308  # 2 sqrt(2 / pi)


@mx.custom_function
def gelu(x: mx.array) -> mx.array:
    """The tanh form of GELU (Hendrycks and Gimpel 2016), written as ``x sigmoid(2u)``."""
    wide = x.astype(mx.float32)
    return (wide * sigmoid(_GELU * (wide + 0.044715 * wide * wide * wide))).astype(x.dtype)


@gelu.vjp
def _gelu_gradient(narrow, cotangent, _output):
    x = narrow.astype(mx.float32)
    share = sigmoid(_GELU * (x + 0.044715 * x * x * x))
    slope = _GELU * (1 + 0.134145 * x * x)
    return (cotangent * share * (1 + x * slope * (1 - share))).astype(narrow.dtype)


def rotate(x: mx.array, offset: int | mx.array, base: float) -> mx.array:
    """Rotary position embedding in its half-split layout (Su et al. 2021), x [B, H, T, D] from position ``offset``."""
    if not on_cpu() or not isinstance(offset, int):
        return mx.fast.rope(x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset)
    # MLX has no such kernel for the CPU: there it computes sines and cosines again at every call.
    return turned(x, *_rotations(offset, *x.shape[-2:], base)).astype(x.dtype)


def turned(x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
    """The halves of x [..., D] as pairs, turned by angles [..., D / 2]."""
    first, second = mx.split(x, 2, axis=-1)
    return mx.concatenate([first * cosines - second * sines, first * sines + second * cosines], axis=-1)


@functools.lru_cache(maxsize=64)
def _rotations(offset: int, length: int, dim: int, base: float) -> tuple[mx.array, mx.array]:
    rates = base ** (-2 * np.arange(dim // 2) / dim)
    angles = np.arange(offset, offset + length)[:, None] * rates
    return mx.array(np.cos(angles), mx.float32), mx.array(np.sin(angles), mx.float32)


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask, training: bool = False
) -> mx.array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1).

    Args:
        queries: [B, H, T, D].
        keys, values: [B, H, S, D].
        scale: of the scores.
        mask: bool, True where a query may see a key, broadcast to [B, H, T, S]; "causal"; or None.
        training: whether a gradient follows.

    Returns:
        [B, H, T, D].
    """
    # Where a gradient follows, MLX 0.32 has no one kernel for it on Metal; on CUDA it has one in 16 bits.
    if not on_cpu() and not (training and queries.dtype == mx.float32):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    length, span = queries.shape[2], keys.shape[2]
    if mask is None:
        mask = mx.ones((length, span), dtype=mx.bool_)
    elif isinstance(mask, str):
        mask = mx.arange(span)[None] <= mx.arange(span - length, span)[:, None]
    if on_cpu():  # where a pass over the queries is cheaper than one more operation on the scores
        return _attention(1.0)(queries * scale, keys, values, mask)[0]
    return _attention(scale)(queries, keys, values, mask)[0]


@functools.cache
def _attention(scale: float) -> Callable:
    """The mixed values, and the probabilities [B, H, T, S], which the gradient uses again."""

    def scaled(scores: mx.array) -> mx.array:
        return scores if scale == 1 else scores * scale

    @mx.custom_function
    def attend(queries, keys, values, mask):
        scores = (queries @ keys.swapaxes(-1, -2)).astype(mx.float32)
        shares = _softmax(mx.where(mask, scaled(scores), -1e30)).astype(values.dtype)
        return shares @ values, shares

    @attend.vjp
    def gradient(primals, cotangents, outputs):
        queries, keys, values, mask = primals
        cotangent, (mixed, shares) = cotangents[0], outputs
        # The row sum of shares * d(shares) is that of cotangent * output, which is T/D times smaller
        # (Dao et al. 2022, appendix B.2).
        mean = (cotangent * mixed).astype(mx.float32).sum(axis=-1, keepdims=True)
        scores = scaled((shares * (cotangent @ values.swapaxes(-1, -2) - mean)).astype(shares.dtype))
        return scores @ keys, scores.swapaxes(-1, -2) @ queries, shares.swapaxes(-1, -2) @ cotangent, mask

    return attend


def _softmax(scores: mx.array) -> mx.array:
    """Over the last axis, float32."""
    if not on_cpu():
        return mx.softmax(scores, axis=-1)
    powers = exp_nonpositive(scores - scores.max(axis=-1, keepdims=True))
    return powers * (1 / powers.sum(axis=-1, keepdims=True))
