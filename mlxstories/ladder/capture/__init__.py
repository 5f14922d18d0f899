"""Unmodified training scripts under watch: what they train is captured, and the ladder climbs on it."""

from mlxstories.ladder.capture.script import CapturedScript, defines

__all__ = ["CapturedScript", "defines"]
