"""What cannot be trained, and whether it was learned before."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import plain
import pytest
from tiny import T, V, WithMask, batches, errors_at_init, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.step.frozen import structure


@pytest.mark.parametrize("shared", [False, True], ids=["fresh models", "one model"])
@pytest.mark.parametrize("frozen", ["mix", "embed", None])
def test_frozen_layers_are_found_also_where_one_model_is_handed_out(frozen, shared):
    class Wide(WithMask):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(V, 16)
            self.mask = mx.tri(T)
            angles = np.arange(T)[:, None] * 10000.0 ** -(np.arange(8) / 8)
            self.table = mx.array(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), mx.float32)
            self.freeze(keys=["mask", "table"], recurse=False)
            if frozen:
                self[frozen].freeze()

        def __call__(self, tokens):
            return super().__call__(tokens) + 0 * self.table.sum()

    one = Wide()
    model = (lambda: one) if shared else Wide
    assert Bench(subject(model=model), 0).hands_out_one_model is shared
    assert ("frozen-parameters" in errors_at_init(model=model)) == bool(frozen)


def test_what_was_learned_and_frozen_is_no_noise():
    learned = WithMask()
    rng = np.random.default_rng(0)
    spikes = 0.3 * rng.standard_normal((16, 2)) @ rng.standard_normal((2, 16))
    learned.mix.weight = learned.mix.weight + mx.array(spikes.astype(np.float32))
    learned.mix.freeze()
    assert "frozen-parameters" not in errors_at_init(model=lambda: learned)


def test_a_frozen_model_that_knows_something_is_no_noise():
    trained = WithMask()
    trained.mask = mx.tri(T)
    optimizer = optim.Adam(1e-2)

    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")

    for batch in batches(0, 60):
        _, gradients = nn.value_and_grad(trained, loss)(trained, batch)
        optimizer.update(trained, gradients)
        mx.eval(trained.parameters(), optimizer.state)
    trained.freeze()
    trained.head.unfreeze()
    assert "frozen-parameters" not in errors_at_init(model=lambda: trained)


def test_frozen_zeros_are_not_taken_for_blindness():
    class Gated(WithMask):
        def __init__(self):
            super().__init__()
            self.mix.weight = mx.zeros((16, 16))
            self.mix.freeze()
            self.embed.freeze()

    told = errors_at_init(model=Gated)
    assert "frozen-parameters" in told and "input-blind" not in told


def test_a_model_without_anything_to_train_says_so():
    def model():
        mx.random.seed(0)  # pretrained, as it were: the same every time
        made = WithMask()
        made.freeze()
        return made

    assert "no-update" in errors_at_init(model=model)


IDS, WIDTH = 23, 16


class Plain(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.embed, self.head = nn.Embedding(IDS, WIDTH), nn.Linear(WIDTH, IDS)
        self.head.weight = scale * self.head.weight

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def pretrained(rank, seeded):
    """Weights that stand for what was learnt: far from random numbers with a rank, of the same seed for ever."""

    def model():
        if seeded:
            mx.random.seed(5)
        made = Plain(40.0)
        for layer in (made.embed, made.head) if rank else ():
            left, right = mx.random.normal((IDS, rank)), mx.random.normal((rank, WIDTH))
            layer.weight = layer.weight + 3 * left @ right
        return made

    return model


@pytest.mark.parametrize(
    ("rank", "seeded", "accused"), [(2, True, False), (0, True, True), (2, False, True), (0, False, True)]
)
def test_what_a_pretrained_model_says_of_other_texts_is_no_matter_of_initial_weights(rank, seeded, accused):
    on = plain.bench(model=pretrained(rank, seeded), vocab_size=IDS)
    assert judged("first loss near ln V", on) == [("bad-initialization", "error")] * accused
    learned = structure(on)
    assert (learned is None) is not seeded
    assert learned is None or (learned > 1.3) is (rank > 0)
