"""The general net: parts exchanged for known-good ones, and small changes inside the part at fault, all trained."""

from mlxstories.ladder.exchange.deep import MOST, deepened, estimate

__all__ = ["MOST", "deepened", "estimate"]
