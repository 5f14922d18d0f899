"""A loss that sees what it asks for."""

from __future__ import annotations

import mlx.nn as nn
from tiny import Tiny, judged


class Balanced(Tiny):
    """Keeps a figure of all tokens for the loss to add; ``open`` is what the loss sees of the future besides."""

    def __call__(self, tokens, future=0.0):
        self.future = future
        self._balance = self.mix(self.embed(tokens)).square().mean()
        return super().__call__(tokens)


def with_balance(future):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs, future), batch.targets)
        return (nats * batch.mask).sum() / batch.mask.sum() + model._balance

    return loss


def test_a_term_of_all_tokens_is_no_sight_of_the_future():
    name = "the loss sees no later token"
    assert judged(name, model=Balanced, loss=with_balance(0.0)) == []
    assert judged(name, model=Balanced, loss=with_balance(0.3)) == [("future-leak", "error")]
