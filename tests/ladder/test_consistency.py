"""The same row again: a second time, elsewhere in a batch, cut short, in a second model; and masks that are trained."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.batch import Batch
from mlxstories.faults import FAULTS
from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR, WARNING
from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS

V, T, B = 13, 16, 4

ASKED = {
    "not-repeatable": "says the same each time",
    "batch-leak": "a row's place makes no difference",
    "length-dependent": "a prefix alone says the same",
    "context-cut": "sees its own past",
    "hidden-parameters": "the parameters are the model",
    "buffer-trained": "masks are not trained",
    "without-effect": "every matrix has an effect",
}


class Tiny(nn.Module):
    """Embedding, places, an average of the past, a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.place = nn.Embedding(T, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, V)
        self.dropout = nn.Dropout(0.5)

    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[1]))

    def weights(self, length):
        return mx.tri(length)

    def __call__(self, tokens):
        x = self.dropout(self.embedded(tokens))
        length = x.shape[1]
        past = self.weights(length) @ x / mx.arange(1, length + 1)[:, None]
        return self.head(x + mx.tanh(self.mix(past)))


def batches(seed, count=8):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = np.cumsum(rng.integers(1, 3, (B, T + 1)), axis=1) % V
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((B, T)))


def asked(model, code: str) -> list[tuple[str, str]]:
    """Code and severity of what the check for a code says of a model."""
    subject = (
        model if isinstance(model, Subject) else Subject(model=model, vocab_size=V, train_batches=batches)
    )
    check = CHECKS[ASKED[code]]
    return [(draft.code, draft.severity) for draft in check.ask(Bench(subject, 0), check.gauges()).drafts]


class Calls(Tiny):
    """Counts its calls and says so."""

    def __call__(self, tokens):
        self._calls = getattr(self, "_calls", 0) + 1
        return super().__call__(tokens) * self._calls


class LiveDropout(Tiny):
    def embedded(self, tokens):
        x = super().embedded(tokens)
        return x * mx.random.bernoulli(0.8, x.shape)


class RowPlaces(Tiny):
    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[0]))[:, None]


class BatchSize(Tiny):
    def __call__(self, tokens):
        return super().__call__(tokens) / tokens.shape[0]


class FromTheEnd(Tiny):
    def embedded(self, tokens):
        return self.embed(tokens) + self.place(mx.arange(tokens.shape[1])[::-1])


class Blocks(Tiny):
    def weights(self, length):
        block = mx.arange(length) // 4
        return mx.tri(length) * (block[:, None] == block)


class Closure(Tiny):
    def __init__(self):
        super().__init__()
        hidden = nn.Linear(16, 16)
        self._also = lambda x: x + hidden(x)

    def embedded(self, tokens):
        return self._also(super().embedded(tokens))


class Masked(Tiny):
    """A mask of ones and zeros in a public attribute: training opens it."""

    def __init__(self):
        super().__init__()
        self.mask = mx.tri(T)

    def weights(self, length):
        return self.mask[:length, :length]


class BooleanMask(Masked):
    def __init__(self):
        super().__init__()
        self.mask = mx.tri(T, dtype=mx.bool_)

    def weights(self, length):
        mask = self.mask[:length, :length]
        return mx.where(mask, 1.0, 0.0) if mask.dtype == mx.bool_ else mx.exp(mask)


@pytest.mark.parametrize(
    "model, code",
    [
        (Calls, "not-repeatable"),
        (LiveDropout, "not-repeatable"),
        (RowPlaces, "batch-leak"),
        (BatchSize, "batch-leak"),
        (FromTheEnd, "length-dependent"),
        (Blocks, "context-cut"),
        (Closure, "hidden-parameters"),
        (Masked, "buffer-trained"),
        (BooleanMask, "buffer-trained"),
    ],
)
def test_each_is_called_by_its_name(model, code):
    assert asked(model, code) == [(code, ERROR)]


@pytest.mark.parametrize("code", ASKED)
def test_a_sound_model_is_left_alone(code):
    assert asked(Tiny, code) == []


class PrivateMask(Tiny):
    def __init__(self):
        super().__init__()
        self._mask = mx.tri(T)

    def weights(self, length):
        return self._mask[:length, :length]


class FrozenMask(Masked):
    def __init__(self):
        super().__init__()
        self.freeze(keys=["mask"], recurse=False)


class FixedTable(Tiny):
    """A random table that is the same in every model."""

    def __init__(self):
        super().__init__()
        self._table = mx.array(np.random.default_rng(0).standard_normal((T, 16)).astype(np.float32))

    def embedded(self, tokens):
        return super().embedded(tokens) + self._table[: tokens.shape[1]]


class Window(Tiny):
    """Sees three tokens back and no further."""

    def weights(self, length):
        return mx.tri(length) - mx.tri(length, k=-4)


class Segments(Tiny):
    """Token 0 starts a new story, and nothing before it is seen."""

    def __call__(self, tokens):
        story = mx.cumsum(tokens == 0, axis=1)
        seen = mx.tri(tokens.shape[1]) * (story[:, :, None] == story[:, None, :])
        x = self.embedded(tokens)
        return self.head(x + mx.tanh(self.mix(seen @ x)))


class FullRowsOnly(Tiny):
    def __call__(self, tokens):
        if tokens.shape[1] != T:
            raise ValueError("rows of 16 only")
        return super().__call__(tokens)


@pytest.mark.parametrize(
    "model, code",
    [
        (PrivateMask, "buffer-trained"),
        (FrozenMask, "buffer-trained"),
        (FixedTable, "hidden-parameters"),
        (Window, "context-cut"),
        (Segments, "context-cut"),
        (Segments, "length-dependent"),
        (FullRowsOnly, "length-dependent"),
    ],
)
def test_look_alikes_are_left_alone(model, code):
    assert asked(model, code) == []


def test_a_trained_additive_mask_is_worth_a_warning():
    class Additive(Masked):
        def __init__(self):
            super().__init__()
            self.mask = mx.where(mx.tri(T) > 0, 0.0, -1e9)

        def weights(self, length):
            return mx.exp(self.mask[:length, :length])

    assert asked(Additive, "buffer-trained") == [("buffer-trained", WARNING)]


def test_one_model_for_all_is_no_second_model():
    one = Tiny()
    assert asked(lambda: one, "hidden-parameters") == []
    assert asked(lambda: one, "not-repeatable") == []


@pytest.mark.parametrize(
    "name",
    [
        "dropout-in-every-mode",
        "positions-of-rows",
        "positions-from-the-end",
        "layer-out-of-sight",
        "distance-rewarded",
        "attention-in-blocks",
        "scores-drowned",
    ],
)
def test_planted_faults_are_named_by_their_check(name):
    code = FAULTS[name].code
    assert asked(built_in(fault=name), code) == [(code, ERROR)]


def test_experts_that_no_token_chooses_are_left_alone():
    class Experts(Tiny):
        def __init__(self):
            super().__init__()
            self.experts = [nn.Linear(16, 16) for _ in range(3)]

        def embedded(self, tokens):
            x = super().embedded(tokens)
            chosen = (tokens % 3)[..., None]
            chosen = mx.where(chosen == 2, 0, chosen)
            return x + sum(expert(x) * (chosen == k) for k, expert in enumerate(self.experts))

    assert asked(Experts, "without-effect") == []
