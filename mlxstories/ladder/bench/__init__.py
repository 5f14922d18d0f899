"""The workbench: it calls the user's code, leaves everything as it was found, and measures; it judges nothing.

One folder for each part of a setup, and `training` for what is trained on it; here is what all of them stand on.
"""

from mlxstories.ladder.bench.bench import Bench, SubjectFault, measurement

__all__ = ["Bench", "SubjectFault", "measurement"]
