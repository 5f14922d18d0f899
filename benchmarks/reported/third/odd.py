"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import Attention, Block, D, FeedForward, H, Story, V, adamw, deal, mean_nats, setup, windows
from mlx.utils import tree_map


class Parallel(nn.Module):
    """Attention and feed-forward layer read the same normed stream."""

    def __init__(self):
        super().__init__()
        self.attention, self.feed_forward, self.norm = Attention(), FeedForward(), nn.RMSNorm(D)

    def __call__(self, x, cache=None):
        h = self.norm(x)
        return x + self.attention(h, cache) + self.feed_forward(h)


def h_parallel():
    """Both branches of a block stand side by side."""
    return setup("parallel branches", lambda: Story(block=Parallel))


class Looped(Story):
    """One block, three times, told each time which it is."""

    def __init__(self):
        super().__init__(layers=1)
        self.rounds = nn.Embedding(3, D)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for time in range(3):
            h = self.blocks[0](h + self.rounds(mx.array(time)))
        return self.head(self.norm(h))


def h_looped():
    """The same block is passed through three times."""
    return setup("looped block", Looped)


class Differential(Attention):
    """Half of the heads' weights are taken away from the other half's."""

    def __init__(self):
        super().__init__()
        self.v = nn.Linear(D, D // 2, bias=False)
        self.o = nn.Linear(D // 2, D, bias=False)
        self.less = mx.array([-1.0] * (H // 2))
        self.norm = nn.RMSNorm(D // H)

    def __call__(self, x, cache=None):
        q, k = self.turned(*(self.heads(f(x)) for f in (self.q, self.k)), cache)
        v = self.v(x).reshape(*x.shape[:2], H // 2, D // H).swapaxes(1, 2)
        weights = self.weights(q @ k.swapaxes(-1, -2) * (D // H) ** -0.5 + self.bias(q.shape[2], k.shape[2]))
        first, second = mx.split(weights, 2, axis=1)
        told = self.norm((first - mx.sigmoid(self.less)[:, None, None] * second) @ v)
        return self.o(told.swapaxes(1, 2).reshape(*x.shape[:2], -1))


def h_differential():
    """The difference of two softmaxes."""
    return setup("differential attention", lambda: Story(attention=Differential))


class Registers(Story):
    """Four learned vectors stand before each row, and are cut off at the end."""

    def __init__(self):
        super().__init__()
        self.registers = 0.1 * mx.random.normal((4, D))

    def __call__(self, x, cache=None):
        h = self.embed(x)
        h = mx.concatenate([mx.broadcast_to(self.registers, (len(x), 4, D)), h], axis=1)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h[:, 4:]))


def h_registers():
    """Vectors that stand for no token."""
    return setup("registers", Registers)


def h_sign_of_momentum():
    """Lion, with the small rate and the large decay that go with it."""
    return setup("Lion", optimizer=lambda: optim.Lion(3e-4, weight_decay=0.3))


def in_halves(model, optimizer, batch):
    """The forward and backward pass in bfloat16, weights and their update in float32."""
    kept = model.trainable_parameters()

    def loss(weights):
        model.update(tree_map(lambda a: a.astype(mx.bfloat16), weights))
        return mean_nats(model, batch)

    value, gradient = mx.value_and_grad(loss)(kept)
    model.update(kept)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_master_weights():
    """Weights of 32 bits are rounded to 16 for each step's passes."""
    return setup("master weights", train_step=in_halves)


class ShortConvolution(nn.Module):
    """A sum of this place and the three before, for each channel its own."""

    def __init__(self):
        super().__init__()
        self.weight = mx.concatenate([mx.zeros((3, D)), mx.ones((1, D))])

    def __call__(self, x):
        padded = mx.pad(x, ((0, 0), (3, 0), (0, 0)))
        return sum(self.weight[i] * padded[:, i : i + x.shape[1]] for i in range(4))


class Convolved(Block):
    def __init__(self):
        super().__init__()
        self.mixed = ShortConvolution()

    def __call__(self, x, cache=None):
        x = x + self.attention(self.mixed(self.n1(x)))
        return x + self.feed_forward(self.n2(x))


def h_short_convolution():
    """Four places are mixed before attention, by weights that begin as no mixture."""
    return setup("short convolution", lambda: Story(block=Convolved))


def corrupted(seed):
    """In a tenth of the inputs another character stands; targets are as they were."""
    rng = np.random.default_rng(seed)
    for x, y, mask in deal(windows("train"), seed):
        other, replaced = rng.integers(3, V, x.shape), rng.random(x.shape) < 0.1
        yield mx.where(mx.array(replaced), mx.array(other.astype(np.int32)), x), y, mask


def h_corrupted_inputs():
    """Noise in what is read, none in what is asked for."""
    return setup("corrupted inputs", train_batches=corrupted)


def uphill(model, optimizer, batch, far=0.02):
    """Sharpness-aware: the gradient is that of weights a little uphill, the update that of the weights."""
    kept, slope = model.trainable_parameters(), nn.value_and_grad(model, mean_nats)
    value, gradient = slope(model, batch)
    _, length = optim.clip_grad_norm(gradient, 1.0)
    model.update(tree_map(lambda w, g: w + far * g / (length + 1e-12), kept, gradient))
    _, gradient = slope(model, batch)
    model.update(kept)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), optimizer.state, value)
    return value


def h_uphill():
    """Two gradients a step, of which the second counts."""
    return setup("sharpness-aware", train_step=uphill)


def with_floor(model, batch):
    """Nats, and a little less for a spread distribution."""
    x, y, mask = batch
    own = nn.log_softmax(model(x), axis=-1)
    entropy = -(mx.exp(own) * own).sum(-1)
    picked = -mx.take_along_axis(own, y[..., None], axis=-1)[..., 0]
    return ((picked - 0.02 * entropy) * mask).sum() / mask.sum()


def h_confidence_penalty():
    """Confident predictions cost a little."""
    return setup("confidence penalty", loss=with_floor, optimizer=adamw())
