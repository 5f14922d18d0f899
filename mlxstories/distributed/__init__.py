"""Training one model with several processes, on one machine or more, over ``mx.distributed``."""

from mlxstories.distributed.group import ALONE, Group, Lost
from mlxstories.distributed.launch import join

__all__ = ["ALONE", "Group", "Lost", "join"]
