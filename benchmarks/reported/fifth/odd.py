"""Sound setups that look odd, as public code has them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from base import (
    HELD,
    PAD,
    TOLD,
    Attention,
    B,
    Block,
    D,
    Letters,
    Story,
    T,
    V,
    deal,
    mean_nats,
    nats,
    setup,
    step_of,
    windows,
)
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten


class Mixture(Story):
    """The logarithm of a mixture of three softmaxes, which share one output layer."""

    def __init__(self):
        super().__init__()
        self.views, self.prior = nn.Linear(D, 3 * D), nn.Linear(D, 3)

    def __call__(self, x, cache=None):
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        views = mx.tanh(self.views(h)).reshape(*h.shape[:2], 3, D)
        parts = nn.log_softmax(self.head(views), axis=-1)
        return mx.logsumexp(parts + nn.log_softmax(self.prior(h), axis=-1)[..., None], axis=-2)


def h_mixture_of_softmaxes():
    """What the model returns are the logarithms of probabilities."""
    return setup("mixture of softmaxes", Mixture)


class Gated(nn.Module):
    """Places are mixed by one learned triangle of weights, and the mixture gates the other half of the channels."""

    def __init__(self):
        super().__init__()
        self.into, self.out, self.norm = nn.Linear(D, 4 * D), nn.Linear(2 * D, D), nn.LayerNorm(2 * D)
        self.mix = mx.random.normal((2 * T, 2 * T)) * 0.01
        self.bias = mx.ones((2 * T,))

    def __call__(self, x, cache=None):
        n = x.shape[1]
        kept, gate = mx.split(nn.gelu(self.into(x)), 2, axis=-1)
        gate = mx.tril(self.mix[:n, :n]) @ self.norm(gate) + self.bias[:n, None]
        return self.out(kept * gate)


def h_gated_places():
    """No attention: where a token looks is learned for each place, whatever stands there."""
    return setup("gated places", lambda: Story(attention=Gated))


class Deep(Story):
    def layers(self, x):
        """Logits after each block."""
        h, told = self.embed(x), []
        for block in self.blocks:
            h = block(h)
            told.append(self.head(self.norm(h)))
        return told

    def __call__(self, x, cache=None):
        return self.layers(x)[-1]


def of_all_layers(model, batch):
    x, y, mask = batch
    *early, last = (((nats(logits, y) * mask).sum() / mask.sum()) for logits in model.layers(x))
    return last + 0.3 * sum(early)


def h_deep_supervision():
    """The first block, too, is asked for the target, with a smaller weight."""
    return setup("deep supervision", Deep, of_all_layers)


class Sink(Attention):
    """A logit for looking nowhere stands beside the scores of each head: weights add up to less than one."""

    def __init__(self):
        super().__init__()
        self.sink = mx.zeros((1, 4, 1, 1))

    def weights(self, scores):
        sink = mx.broadcast_to(self.sink, (*scores.shape[:-1], 1))
        return mx.softmax(mx.concatenate([sink, scores], axis=-1), axis=-1)[..., 1:]


def h_attention_sink():
    return setup("attention sink", lambda: Story(attention=Sink))


class LAMB(optim.AdamW):
    """Adam's step, as long as a share of the weights that it is for."""

    def apply_single(self, gradient, parameter, state):
        b1, b2 = self.betas
        step = self.step.astype(gradient.dtype)
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        m, v = state["m"] / (1 - b1**step), state["v"] / (1 - b2**step)
        move = m / (mx.sqrt(v) + 1e-6) + self.weight_decay * parameter
        size, length = mx.linalg.norm(parameter), mx.linalg.norm(move)
        trust = mx.where((size > 0) & (length > 0), size / mx.maximum(length, 1e-12), 1.0)
        return parameter - self.learning_rate * trust * move


def h_lamb():
    return setup("LAMB", optimizer=lambda: LAMB(0.02, bias_correction=True))


def ramped(seed):
    """One epoch, in batches of 4 rows, then of 8, then of 16."""
    rows = windows("train")[np.random.default_rng(seed).permutation(len(windows("train")))]
    at = 0
    for size, end in ((4, 160), (8, 480), (B, len(rows))):
        while at + size <= end:
            part = rows[at : at + size]
            yield mx.array(part[:, :-1]), mx.array(part[:, 1:]), mx.ones((size, T))
            at += size


def h_batches_grow():
    """Small batches first, large ones later."""
    return setup("batches grow", train_batches=ramped)


PREFIX, SUFFIX, MIDDLE = V, V + 1, V + 2


@cache
def rearranged(part):
    """int32 [N, T + 1]: windows of T - 2 characters, every second cut in three and told in the order of beginning,
    end, middle."""
    ids = np.array(Letters().encode(" ".join(TOLD if part == "train" else HELD)), np.int32)
    rng, rows = np.random.default_rng(7), []
    for number, at in enumerate(range(0, len(ids) - T - 1, T - 2)):
        if number % 2:
            rows.append(ids[at : at + T + 1])
            continue
        piece = ids[at : at + T - 2]
        one, two = sorted(rng.integers(1, len(piece) - 1, 2))
        begin, middle, end = piece[:one], piece[one:two], piece[two:]
        rows.append(np.concatenate([[PREFIX], begin, [SUFFIX], end, [MIDDLE], middle]))
    return np.stack(rows).astype(np.int32)


def h_fill_in_the_middle():
    """Half of the rows are rearranged, so that the model learns to fill gaps."""
    return setup(
        "fill in the middle",
        lambda: Story(size=V + 3),
        vocab_size=V + 3,
        train_batches=lambda seed: deal(rearranged("train"), seed, lambda rows: rows[:, 1:] != PAD),
        val_batches=lambda: deal(rearranged("val")),
    )


class Scaled(Block):
    """What a branch adds is of unit length, times a learned step."""

    def __init__(self):
        super().__init__()
        self.steps = mx.ones((2, D)) * 0.5

    def __call__(self, x, cache=None):
        for step, branch in zip(self.steps, (self.attention, self.feed_forward), strict=True):
            x = x + step * mx.fast.rms_norm(branch(x), None, 1e-6)
            x = mx.fast.rms_norm(x, None, 1e-6)
        return x


def of_unit_rows(path, weight):
    """Rows of length one; vectors, and the steps of branches, stay."""
    if weight.ndim < 2 or "steps" in path:
        return weight
    return weight / (mx.linalg.norm(weight, axis=-1, keepdims=True) + 1e-8)


def on_the_sphere(model, optimizer, batch):
    value = step_of(mean_nats)(model, optimizer, batch)
    model.update(tree_map_with_path(of_unit_rows, model.parameters()))
    mx.eval(model.parameters())
    return value


class Spherical(Story):
    def __init__(self):
        super().__init__(block=Scaled)
        self.update(tree_unflatten([(k, of_unit_rows(k, w)) for k, w in tree_flatten(self.parameters())]))


def h_weights_on_a_sphere():
    """Rows of all matrices are brought back to length one after each update."""
    return setup("weights on a sphere", Spherical, train_step=on_the_sphere)
