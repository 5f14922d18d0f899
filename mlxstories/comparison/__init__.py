"""The fair comparison: arms that differ in named fields alone, over seeds, with the difference explained."""

from mlxstories.comparison.arms import Arm as Arm
from mlxstories.comparison.study import Study as Study
from mlxstories.comparison.study import StudyConfig as StudyConfig
