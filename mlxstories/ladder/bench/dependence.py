"""What each position's logits depend on."""

from mlxstories.ladder.causality import Dependence, dependence, harm  # TRANSITIONAL
from mlxstories.ladder.causality import matrix as dependence_matrix

__all__ = ["Dependence", "dependence", "dependence_matrix", "harm"]
