"""What share of its activations a model drops in training."""

from __future__ import annotations

import mlx.core as mx

from mlxstories.ladder.bench import Bench, measurement
from mlxstories.ladder.bench.samples import sample
from mlxstories.ladder.patches import Patches


@measurement
def dropped_share(bench: Bench) -> float:
    """The largest share that a draw of `mx.random.bernoulli`, which dropout is made of, takes away in a forward pass.

    A draw may say what is left out or what is kept, so a share above a half is taken for its rest.
    """
    shares, draw = [0.0], mx.random.bernoulli

    def noted(p=0.5, *args, **kwargs):
        if isinstance(p, (int, float)):
            shares.append(min(p, 1 - p))
        return draw(p, *args, **kwargs)

    model = bench.model()
    model.train()
    with Patches() as patches, bench.calling("a forward pass"):
        patches.replace(mx.random, "bernoulli", noted)
        mx.eval(model(sample(bench).rows(slice(0, 2)).device().inputs))
    return max(shares)
