"""The workbench: it calls the user's code, leaves everything as it was found, and measures; it judges nothing.

There is a folder for each part of a setup, and `training` for trainings of it; the files here serve all of them.
"""

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.subject_fault import SubjectFault

__all__ = ["Bench", "SubjectFault", "measurement"]
