"""The cheap checks kept on while a training runs: `watch` around a loop, also of a script as it is."""

from mlxstories.ladder.watching.session import Session, watch

__all__ = ["Session", "watch"]
