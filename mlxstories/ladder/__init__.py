"""The debugging ladder: examine a training setup rung by rung and name the cause of what is wrong."""

from mlxstories.ladder.diagnosis import assert_healthy, check_before_training, diagnose
from mlxstories.ladder.finding import CATALOGUE, Diagnosis, Finding
from mlxstories.ladder.subject import Subject, load_subject

__all__ = [
    "CATALOGUE",
    "Diagnosis",
    "Finding",
    "Subject",
    "assert_healthy",
    "check_before_training",
    "diagnose",
    "load_subject",
]
