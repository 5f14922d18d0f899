"""What mlxstories runs on: versions, device, BLAS, memory, and where files lie."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxstories.backend import blas, memory
from mlxstories.runs.directory import RUNS

PACKAGES = ("mlxstories", "mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13", "numpy", "tokenizers")


def environment() -> dict[str, Any]:
    """Versions, device, BLAS and memory (bytes), ready for JSON."""
    device = mx.device_info()
    library = blas.install()
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": platform.platform(),
        "device": {
            "kind": _kind(),
            "name": device.get("device_name", "unknown"),
            "threads": os.cpu_count(),
        },
        "blas": {"name": library.name, "path": library.path},
        "memory": memory.machine_memory(),
    }


def places() -> dict[str, str]:
    """Where downloaded data and runs lie."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"data": str(Path(HF_HUB_CACHE)), "runs": str(RUNS.resolve())}


def warnings(facts: dict[str, Any]) -> list[str]:
    """What slows this environment down, and what to do about it."""
    if facts["blas"]["path"] != "bundled":
        return []
    return [
        "MLX uses its bundled reference BLAS, about 30 times slower than OpenBLAS: "
        "pip install scipy-openblas32 (or a system OpenBLAS, such as Debian's libopenblas0)."
    ]


def _kind() -> str:
    if mx.default_device().type == mx.cpu:
        return "CPU"
    return "Metal GPU" if mx.metal.is_available() else "CUDA GPU"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
