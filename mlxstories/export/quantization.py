"""Matrices in 4 or 8 bits, in the affine form of MLX: w = scale * q + bias for each group of a row."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.errors import StoriesError
from mlxstories.export.model_type import Arrays

GROUPS = (64, 32)  # weights that share a scale


def quantize(arrays: Arrays, bits: int) -> tuple[Arrays, dict[str, int]]:
    """Matrices whose rows divide into groups, quantised; other arrays as they are.

    Returns:
        the arrays, where ``name.weight`` is joined by ``name.scales`` and ``name.biases``, and the entry
        "quantization" of ``config.json``.

    Raises:
        StoriesError: no matrix has rows of a multiple of 32.
    """
    matrices = [name for name, array in arrays.items() if _is_matrix(name, array)]
    fitting = {size: [name for name in matrices if arrays[name].shape[1] % size == 0] for size in GROUPS}
    size = max(GROUPS, key=lambda size: len(fitting[size]))  # of two equal ones the first, which costs less
    if not fitting[size]:
        raise StoriesError(
            f"--quantize needs a width of a multiple of {GROUPS[-1]}; the model's matrices have none."
        )
    written = dict(arrays)
    for name in fitting[size]:
        stem = name.removesuffix(".weight")
        quantized = mx.quantize(arrays[name], group_size=size, bits=bits)
        written |= zip((name, f"{stem}.scales", f"{stem}.biases"), quantized, strict=True)
    return written, {"group_size": size, "bits": bits}


def _is_matrix(name: str, array: mx.array) -> bool:
    """Whether an array is one that mlx-lm looks for in fewer bits: no position, and no convolution's taps."""
    return array.ndim == 2 and name.endswith(".weight") and ".wpe." not in name


def dequantize(arrays: Arrays, quantization: dict[str, int]) -> Arrays:
    """The inverse of `quantize`, up to the rounding that it cost."""
    plain = {name: array for name, array in arrays.items() if not name.endswith((".scales", ".biases"))}
    for name in plain:
        stem = name.removesuffix(".weight")
        if (scales := arrays.get(f"{stem}.scales")) is not None:
            plain[name] = mx.dequantize(
                arrays[name],
                scales,
                arrays[f"{stem}.biases"],
                group_size=quantization["group_size"],
                bits=quantization["bits"],
            )
    return plain
