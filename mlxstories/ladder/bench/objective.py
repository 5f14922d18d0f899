"""What a loss function computes, recovered from its values."""

from mlxstories.ladder.objective import Objective, fit, recover

__all__ = ["Objective", "fit", "recover"]
