"""Unmodified training scripts under watch: what they train is captured, and the ladder climbs on it."""

from mlxstories.ladder.capture.definitions import definitions, is_script
from mlxstories.ladder.capture.loop import OwnTraining
from mlxstories.ladder.capture.script import CapturedScript
from mlxstories.ladder.capture.writing import write_subject, write_template

__all__ = ["CapturedScript", "OwnTraining", "definitions", "is_script", "write_subject", "write_template"]
