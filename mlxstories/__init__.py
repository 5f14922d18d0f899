"""Train small story models from scratch with MLX, and find out why one is not learning.

Names are imported when they are first used, so that ``mlxstories --help`` need not load MLX.
"""

from __future__ import annotations

import importlib
import importlib.metadata

_HOMES = {
    "Batch": "batch",
    "ModelConfig": "model",
    "Transformer": "model",
    "OptimizerConfig": "optim",
    "ScheduleConfig": "optim",
    "PHASE_1": "training.phases",
    "PHASE_2": "training.phases",
    "PHASE_3": "training.phases",
    "Phase": "training.phases",
    "StoriesError": "errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name == "__version__":
        return importlib.metadata.version(__name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *__all__]
