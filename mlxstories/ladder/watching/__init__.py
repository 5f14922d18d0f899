"""The cheap checks running alongside a training: `watch` around a loop, or around a script as it is."""

from mlxstories.ladder.watching.session import Session, watch

__all__ = ["Session", "watch"]
