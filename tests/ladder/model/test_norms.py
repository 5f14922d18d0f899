"""What norms pass on of what they are given."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import Tiny, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.norms import norms


class Normed(Tiny):
    def __init__(self, gain, shift, norm=nn.LayerNorm):
        super().__init__()
        self.norm = norm(16)
        self.norm.weight = gain * mx.ones(16)
        if "bias" in self.norm:
            self.norm.bias = shift * mx.ones(16)

    def __call__(self, tokens):
        return self.head(self.norm(self.embed(tokens)))


@pytest.mark.parametrize(
    ("gain", "shift", "silent"), [(0.0, 1.0, True), (0.01, 1.0, True), (0.0, 0.0, False), (1.0, 1.0, False)]
)
def test_a_norm_that_gives_out_its_shift_alone_is_an_error(gain, shift, silent):
    bench = Bench(subject(model=lambda: Normed(gain, shift)))
    heard = norms(bench)["norm"]
    assert heard.varies == pytest.approx(gain, abs=0.05)  # of noise of a standard deviation of 1
    assert heard.constant == pytest.approx(shift, abs=0.2)
    said = judged("norms pass on what they are given", bench)
    assert said == ([("bad-initialization", "error")] if silent else [])


def test_a_norm_without_a_shift_is_not_asked():
    assert norms(Bench(subject(model=lambda: Normed(0.0, 0.0, nn.RMSNorm)))) == {}
