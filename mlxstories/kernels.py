"""The one place that knows which device it runs on.

MLX's CPU ``exp`` takes 12 ns an element and is most of a small model's training step. A polynomial made of
multiplications and additions is vectorised by the compiled loop and takes 1 ns, so softmax and the
activations are built on it there. A GPU has fast exponentials and fused attention, which are used as they
are. Importing this module also puts a fast BLAS under MLX where that helps.
"""

from __future__ import annotations

import os
import threading

import mlx.core as mx

from mlxstories import blas

blas.install()

_SMALL = 4096  # elements, for which a polynomial's several loops cost more than they save
_DOUBLINGS = 8
_LOWEST = -87.0  # exp of it is the smallest normal float32


def on_cpu() -> bool:
    return mx.default_device().type == mx.cpu


def streams() -> list[mx.Stream]:
    """Where parts of a batch run at the same time: a CPU stream is one thread, a GPU needs no help."""
    if not on_cpu():
        return [mx.default_stream(mx.default_device())]
    if not hasattr(_own, "streams"):  # a stream belongs to the thread that made it
        more = [mx.new_stream(mx.cpu) for _ in range(_cores() - 1)]
        _own.streams = [mx.default_stream(mx.cpu), *more]
    return _own.streams


_own = threading.local()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def before_next_step(token: mx.array) -> mx.array:
    """What decoding last chose, when the next step may be started: on a CPU when it is there, because a step under
    way holds on to the cache, which the next one then copies instead of updating; on a GPU, fed ahead, at once."""
    if on_cpu():
        mx.eval(token)
    return token


def exp_nonpositive(x: mx.array) -> mx.array:
    """``exp(x)`` for float32 x <= 0, within ``(1 + |x|) 3.5e-7`` relative; below -87 it gives exp(-87).

    The series of expm1(-x / 2^8), then eight times ``q <- q (2 + q)``, which leads from expm1(y) to
    expm1(2y), then the reciprocal. Every term is positive, so nothing cancels.
    """
    if not on_cpu() or x.size <= _SMALL:
        return mx.exp(x)
    y = mx.maximum(x, _LOWEST) * (-1 / 2**_DOUBLINGS)
    series = 1 + y * (1 / 7)
    for n in (6, 5, 4, 3, 2):
        series = 1 + y * (1 / n) * series
    q = y * series
    for _ in range(_DOUBLINGS):
        q = q * (2 + q)
    return 1 / (1 + q)


def sigmoid(x: mx.array) -> mx.array:
    """``1 / (1 + exp(-x))``, elementwise, float32."""
    if not on_cpu() or x.size <= _SMALL:
        return mx.sigmoid(x)
    small = exp_nonpositive(-mx.abs(x))
    return mx.where(x >= 0, 1.0, small) / (1 + small)


@mx.custom_function
def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``, elementwise (Shazeer 2020)."""
    return gate * sigmoid(gate) * up


@swiglu.vjp
def _swiglu_gradient(primals, cotangent, _output):
    gate, up = primals
    share = sigmoid(gate)
    return cotangent * up * share * (1 + gate * (1 - share)), cotangent * gate * share


_GELU = 1.5957691216057308  # 2 sqrt(2 / pi)


@mx.custom_function
def gelu(x: mx.array) -> mx.array:
    """The tanh form of GELU (Hendrycks and Gimpel 2016), written as ``x sigmoid(2u)``."""
    return x * sigmoid(_GELU * (x + 0.044715 * x * x * x))


@gelu.vjp
def _gelu_gradient(x, cotangent, _output):
    share = sigmoid(_GELU * (x + 0.044715 * x * x * x))
    slope = _GELU * (1 + 0.134145 * x * x)
    return cotangent * share * (1 + x * slope * (1 - share))


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask) -> mx.array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1).

    Args:
        queries: [B, H, T, D].
        keys, values: [B, H, S, D].
        scale: of the scores.
        mask: bool, True where a query may see a key, broadcast to [B, H, T, S]; "causal"; or None.

    Returns:
        [B, H, T, D].
    """
    if not on_cpu():
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    length, span = queries.shape[2], keys.shape[2]
    if mask is None:
        mask = mx.ones((length, span), dtype=mx.bool_)
    elif isinstance(mask, str):
        mask = mx.arange(span)[None] <= mx.arange(span - length, span)[:, None]
    return _attention(queries * scale, keys, values, mask)[0]


@mx.custom_function
def _attention(queries, keys, values, mask):
    """The mixed values, and the probabilities [B, H, T, S], which the gradient uses again."""
    scores = queries @ keys.swapaxes(-1, -2)
    scores = mx.where(mask, scores, -1e30)
    powers = exp_nonpositive(scores - scores.max(axis=-1, keepdims=True))
    # Masked scores would leave exp(-87) behind, which a row must not see at all.
    powers = mx.where(mask, powers, 0)
    shares = powers * (1 / powers.sum(axis=-1, keepdims=True))
    return shares @ values, shares


@_attention.vjp
def _attention_gradient(primals, cotangents, outputs):
    queries, keys, values, mask = primals
    cotangent, (mixed, shares) = cotangents[0], outputs
    # The row sum of shares * d(shares) is that of cotangent * output, which is T/D times smaller
    # (Dao et al. 2022, appendix B.2).
    mean = (cotangent * mixed).sum(axis=-1, keepdims=True)
    scores = shares * (cotangent @ values.swapaxes(-1, -2) - mean)
    return scores @ keys, scores.swapaxes(-1, -2) @ queries, shares.swapaxes(-1, -2) @ cotangent, mask
