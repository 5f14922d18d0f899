"""The general net: exchange parts for known-good ones, and make small changes inside the part at fault; all are
trained."""

from mlxstories.ladder.exchange.deep import MOST, deepened, estimate

__all__ = ["MOST", "deepened", "estimate"]
