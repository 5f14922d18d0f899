"""What a token takes from its neighbours before attention: a short causal convolution."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlxstories.model.config import ModelConfig


class Mixing(nn.Module):
    """Adds to each token a weighted sum of the ``mixing - 1`` before it in its story, feature by feature.

        y[t] = x[t] + sum over n of taps[n - 1] * x[t - n],     n = 1 ... mixing - 1

    A canon layer (Allen-Zhu 2025, "Physics of language models, part 4.1"). The taps start at zero, so a new model is
    the one without. Attention need not learn first to look one token back before it can look up what followed a
    word earlier in the story.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.taps = mx.zeros((config.mixing - 1, config.dim))

    def __call__(
        self, x: mx.array, places: mx.array | None, earlier: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """x [B, T, D] -> the same with its neighbours, and the last tokens [B, mixing - 1, D] for those that follow.

        Args:
            places: int [B, T], of each token in its story; None where a row is one story.
            earlier: the tokens before x [B, mixing - 1, D]; None: there are none.
        """
        count, length = len(self.taps), x.shape[1]
        if earlier is None:
            earlier = mx.zeros((x.shape[0], count, x.shape[2]), dtype=x.dtype)
        row = mx.concatenate([earlier, x], axis=1)
        for n in range(1, count + 1):
            before = row[:, count - n : count - n + length]
            if places is not None:
                before = mx.where(places[..., None] >= n, before, 0)
            x = x + before * self.taps[n - 1]
        return x, row[:, length:]
