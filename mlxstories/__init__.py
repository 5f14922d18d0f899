"""Train small story models from scratch with MLX, and find out why one is not learning.

Names are imported when they are first used, so that ``mlxstories --help`` need not load MLX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxstories.batch import Batch as Batch
    from mlxstories.errors import StoriesError as StoriesError
    from mlxstories.findings import Finding as Finding
    from mlxstories.generation.decoding import generate as generate
    from mlxstories.ladder import Diagnosis as Diagnosis
    from mlxstories.ladder import Subject as Subject
    from mlxstories.ladder import assert_healthy as assert_healthy
    from mlxstories.ladder import diagnose as diagnose
    from mlxstories.model import ModelConfig as ModelConfig
    from mlxstories.model import Transformer as Transformer
    from mlxstories.optim import OptimizerConfig as OptimizerConfig
    from mlxstories.optim import ScheduleConfig as ScheduleConfig
    from mlxstories.training.config import TrainingConfig as TrainingConfig
    from mlxstories.training.experiment import train as train
    from mlxstories.training.phases import PHASE_1 as PHASE_1
    from mlxstories.training.phases import PHASE_2 as PHASE_2
    from mlxstories.training.phases import PHASE_3 as PHASE_3
    from mlxstories.training.phases import Phase as Phase
    from mlxstories.training.watch import Watch as Watch

_HOMES = {
    "Batch": "batch",
    "Diagnosis": "ladder",
    "Finding": "findings",
    "ModelConfig": "model",
    "OptimizerConfig": "optim",
    "PHASE_1": "training.phases",
    "PHASE_2": "training.phases",
    "PHASE_3": "training.phases",
    "Phase": "training.phases",
    "ScheduleConfig": "optim",
    "StoriesError": "errors",
    "Subject": "ladder",
    "TrainingConfig": "training.config",
    "Transformer": "model",
    "Watch": "training.watch",
    "assert_healthy": "ladder",
    "diagnose": "ladder",
    "generate": "generation.decoding",
    "train": "training.experiment",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version  # which loads much, and is seldom asked for

        return version(__name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *__all__]
