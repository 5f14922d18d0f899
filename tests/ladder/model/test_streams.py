"""Which branches are added to the stream, which take its place, and where the stream is dropped."""

from __future__ import annotations

import linecache

import mlx.core as mx
import mlx.nn as nn
import pytest
from tiny import V, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.streams import streams, streams_dropped
from mlxstories.ladder.registry import CHECKS

D = 12


class Past(nn.Module):
    """A mean of the past."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(D, D)

    def __call__(self, x):
        return self.out(mx.cumsum(x, axis=1) / mx.arange(1, x.shape[1] + 1)[:, None])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2, self.n3, self.mix = nn.RMSNorm(D), nn.RMSNorm(D), nn.RMSNorm(D), Past()
        self.up, self.down = nn.Linear(D, D), nn.Linear(D, D)

    def feed(self, x):
        return self.down(nn.relu(self.up(x)))

    def __call__(self, x):
        x = x + self.mix(self.n1(x))
        return x + self.feed(self.n2(x))


class Behind(Block):
    def __call__(self, x):
        x = self.n1(x + self.mix(x))
        return self.n2(x + self.feed(x))


class Between(Block):
    def __call__(self, x):
        x = x + self.n3(self.mix(self.n1(x)))
        return x + self.feed(self.n2(x))


class Within(Block):
    """The branch holds a stream of its own, and is added as a whole."""

    def __call__(self, x):
        y = self.mix(self.n1(x))
        y = y + self.feed(self.n2(y))
        return x + self.n3(y)


class Feeds(Block):
    def __call__(self, x):
        return self.feed(self.n1(x)) + x


class FirstLeftOut(Block):
    def __call__(self, x):
        x = self.mix(self.n1(x))  # here
        return x + self.feed(self.n2(x))


class ChainLeftOut(Block):
    """Two modules one behind the other make one branch."""

    def __init__(self):
        super().__init__()
        self.before = nn.Linear(D, D)

    def __call__(self, x):
        x = self.mix(self.before(self.n1(x)))  # here
        return x + self.feed(self.n2(x))


class SecondLeftOut(Block):
    def __init__(self):
        super().__init__()
        self.fed = Feeds()

    def __call__(self, x):
        x = x + self.mix(self.n1(x))
        return self.up(self.n2(x))  # here


class Dropping(Block):
    def __init__(self, p=0.1):
        super().__init__()
        self.drop = nn.Dropout(p)

    def __call__(self, x):
        x = self.drop(x + self.mix(self.n1(x)))  # here
        return x + self.feed(self.n2(x))


class DroppingBranches(Dropping):
    def __call__(self, x):
        x = x + self.drop(self.mix(self.n1(x)))
        # a branch reads what is dropped, the stream is whole
        return x + self.drop(self.feed(self.n2(self.drop(x))))


class DroppingNothing(Dropping):
    def __init__(self):
        super().__init__(0.0)


class Stack(nn.Module):
    def __init__(self, block, layers=2):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(V, D), [block() for _ in range(layers)]
        self.enter, self.norm, self.head = nn.Linear(D, D), nn.RMSNorm(D), nn.Linear(D, V)

    def __call__(self, tokens):
        x = self.enter(self.norm(self.embed(tokens)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Inline(Stack):
    """All in one function."""

    def __call__(self, tokens):
        x = self.enter(self.norm(self.embed(tokens)))
        for block in self.blocks:
            x = x + block.mix(block.n1(x))
            x = x + block.feed(block.n2(x))
        return self.head(self.norm(x))


class InlineLeftOut(Stack):
    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block.mix(block.n1(x))  # here
            x = x + block.feed(block.n2(x))
        return self.head(self.norm(x))


def bench(model, block):
    return Bench(subject(model=lambda: model(block)))


@pytest.mark.parametrize(
    ("model", "block", "added"),
    [(Stack, Block, 4), (Inline, Block, 4), (Stack, Behind, 4), (Stack, Within, 2), (Stack, Feeds, 2)],
)
def test_branches_that_are_added(model, block, added):
    on = bench(model, block)
    with on.protected():
        found = streams(on)
    assert found.replaced == {} and found.added >= added


def test_a_branch_that_a_norm_ends():
    on = bench(Stack, Between)
    with on.protected():
        assert streams(on).replaced == {}


@pytest.mark.parametrize(
    ("model", "block"),
    [(Stack, FirstLeftOut), (Stack, SecondLeftOut), (Stack, ChainLeftOut), (InlineLeftOut, Block)],
)
def test_a_branch_that_takes_the_place_of_the_stream(model, block):
    on, check = bench(model, block), CHECKS["branches are added to the stream"]
    with on.protected():
        (draft,) = check.ask(on, check.gauges()).drafts
    assert (draft.code, draft.severity, draft.evidence["replaced"]) == ("residual-left-out", "warning", 2)
    assert "# here" in linecache.getline(draft.where["file"], draft.where["line"])


def test_one_layer_may_be_a_projection():
    on = Bench(subject(model=lambda: Stack(FirstLeftOut, layers=1)))
    with on.protected():
        assert streams(on).replaced == {}


def test_a_stream_that_is_dropped():
    on, check = bench(Stack, Dropping), CHECKS["the stream is not dropped"]
    with on.protected():
        (draft,) = check.ask(on, check.gauges()).drafts
    assert (draft.code, draft.severity, draft.evidence["times"]) == ("dropout-too-high", "warning", 2)
    assert draft.evidence["gone"] == pytest.approx(0.19)
    assert "# here" in linecache.getline(draft.where["file"], draft.where["line"])


@pytest.mark.parametrize("block", [Block, DroppingBranches, DroppingNothing])
def test_a_stream_that_goes_on_whole(block):
    on = bench(Stack, block)
    with on.protected():
        assert streams_dropped(on) == {}
