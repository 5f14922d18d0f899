"""The debugging ladder: examine a training setup rung by rung and name the cause of what is wrong."""

from mlxstories.findings import CATALOGUE, Finding
from mlxstories.ladder.climb import assert_healthy, check_before_training, diagnose
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.subject import Subject, load_subject
from mlxstories.ladder.watching import watch
from mlxstories.training.watch import Watch

__all__ = [
    "CATALOGUE",
    "Diagnosis",
    "Finding",
    "Subject",
    "Watch",
    "assert_healthy",
    "check_before_training",
    "diagnose",
    "load_subject",
    "watch",
]
