"""The workbench: it calls the user's code, leaves everything as it was found, and measures; it judges nothing."""

from mlxstories.ladder.bench.bench import Bench, SubjectFault, measurement

__all__ = ["Bench", "SubjectFault", "measurement"]
