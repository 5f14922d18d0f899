"""Optimisers, schedules and clipping, written in MLX."""

from mlxstories.optim.build import OPTIMIZERS as OPTIMIZERS
from mlxstories.optim.build import Groups as Groups
from mlxstories.optim.build import OptimizerConfig as OptimizerConfig
from mlxstories.optim.build import build_optimizer as build_optimizer
from mlxstories.optim.clipping import clip_by_global_norm as clip_by_global_norm
from mlxstories.optim.muon import Muon as Muon
from mlxstories.optim.muon import orthogonalize as orthogonalize
from mlxstories.optim.optimizers import SGD as SGD
from mlxstories.optim.optimizers import AdamW as AdamW
from mlxstories.optim.optimizers import Lion as Lion
from mlxstories.optim.optimizers import NAdamW as NAdamW
from mlxstories.optim.schedules import SCHEDULES as SCHEDULES
from mlxstories.optim.schedules import Schedule as Schedule
from mlxstories.optim.schedules import ScheduleConfig as ScheduleConfig
from mlxstories.optim.schedules import build_schedule as build_schedule
