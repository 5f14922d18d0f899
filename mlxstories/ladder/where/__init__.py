"""Where in the user's code a finding lies: file, line and module."""

from mlxstories.ladder.where.locate import located
from mlxstories.ladder.where.places import Line, place

__all__ = ["Line", "located", "place"]
