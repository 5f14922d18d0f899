"""Where in the user's code a finding lies: file, line and module."""

from mlxstories.ladder.where.locate import located
from mlxstories.ladder.where.places import Line, Place, place

__all__ = ["Line", "Place", "located", "place"]
