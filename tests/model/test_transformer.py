"""What holds for any weights: causality, packing, shapes, counts, and what is refused."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlxstories.errors import StoriesError
from mlxstories.model import (
    SIZES,
    KVCache,
    MlxLmConfig,
    ModelConfig,
    Transformer,
    parameter_count,
    size_config,
)

SMALL = {"vocab_size": 23, "dim": 16, "layers": 2, "heads": 2, "context": 24}
POSITIONS = ("rope", "learned", "sinusoidal")


def build(**changes) -> Transformer:
    mx.random.seed(1)
    return Transformer(ModelConfig(**SMALL | changes))


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 23), st.sampled_from(POSITIONS), st.sampled_from([None, 0]))
def test_a_changed_suffix_leaves_the_prefix_logits(seed, cut, positions, separator):
    rng = np.random.default_rng(seed)
    model = build(positions=positions, separator=separator)
    tokens = rng.integers(0, 23, (2, 24))
    changed = tokens.copy()
    changed[:, cut:] = rng.integers(0, 23, (2, 24 - cut))
    before, after = model(mx.array(tokens)), model(mx.array(changed))
    np.testing.assert_allclose(np.array(before[:, :cut]), np.array(after[:, :cut]), atol=1e-6)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("arch", ["decoder", "encoder"])
def test_stories_packed_in_one_row_have_the_logits_of_each_alone(arch, positions):
    model = build(positions=positions, separator=0, arch=arch)
    first, second = [0, 5, 6, 7, 8], [0, 9, 3, 9, 12, 4, 7]
    packed = np.array(model(mx.array([first + second + [0] * 3])))[0]
    for alone, start in ((first, 0), (second, len(first))):
        logits = np.array(model(mx.array([alone])))[0]
        np.testing.assert_allclose(packed[start : start + len(alone)], logits, atol=1e-5)


def test_without_a_separator_a_row_is_one_text():
    model = build()
    together = model(mx.array([[0, 5, 6, 0, 7]]))[0, 3:]
    alone = model(mx.array([[0, 7]]))[0]
    assert mx.abs(together - alone).max().item() > 1e-3


def test_an_encoder_sees_both_sides():
    model = build(arch="encoder")
    before, after = (model(mx.array([[0, 5, 6, last]]))[0, 0] for last in (7, 8))
    assert mx.abs(before - after).max().item() > 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_parameters_counted_by_hand(size):
    config = size_config(size, 8192)
    model = Transformer(config)
    hidden, count = config.hidden, 8192 * config.dim + config.dim
    count += config.layers * (4 * config.dim**2 + 3 * config.dim * hidden + 2 * config.dim)
    assert parameter_count(model) == count
    if size == "base":
        for kind in ("swiglu", "gelu", "relu2"):
            built = Transformer(size_config(size, 8192, feed_forward=kind))
            assert parameter_count(built) == pytest.approx(4.18e6, rel=0.01)


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"positions": "sinusoidal"}, {"norm": "layer"}])
@pytest.mark.parametrize("size", ["debug", "small"])
def test_the_first_loss_is_near_uniform(size, changes):
    mx.random.seed(0)
    model = Transformer(size_config(size, 500, context=32, **changes))
    tokens = mx.random.randint(0, 500, (4, 32))
    logits = model(tokens)
    other = mx.random.randint(0, 500, (4, 32))
    chosen = mx.take_along_axis(logits, other[..., None], -1).squeeze(-1)
    loss = (mx.logsumexp(logits, -1) - chosen).mean().item()
    assert loss == pytest.approx(math.log(500), abs=0.2)


def test_parameters_have_the_names_that_others_go_by():
    names = {name for name, _ in tree_flatten(build(layers=1, tied=False, positions="learned").parameters())}
    parts = [f"attention.{part}" for part in ("query", "key", "value", "out")]
    parts += [f"feed_forward.{part}" for part in ("up", "gate", "down")]
    parts += ["attention_norm", "feed_forward_norm"]
    blocks = {f"blocks.0.{part}.weight" for part in parts}
    rest = {"embed.weight", "norm.weight", "head_projection.weight", "position.weight"}
    assert names == blocks | rest
    without_gate = {name for name, _ in tree_flatten(build(feed_forward="relu2").parameters())}
    assert not any("gate" in name for name in without_gate)


def test_dropout_is_off_in_evaluation():
    model = build(dropout=0.5)
    tokens = mx.array([[0, 5, 6]])
    assert mx.abs(model(tokens) - model(tokens)).max().item() > 0
    model.eval()
    assert mx.array_equal(model(tokens), model(tokens)).item()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "heads must divide dim; got 3"),
        ({"dim": 6, "heads": 2}, "must be even"),
        ({"dim": 7, "heads": 7, "positions": "sinusoidal"}, "even dim; got 7"),
        ({"dropout": 1.0}, "dropout must be in [0, 1); got 1.0"),
        ({"dropout": float("nan")}, "dropout must be in"),
        ({"layers": 0}, "layers must be a whole number from 1 to 1,000; got 0"),
        ({"context": -5}, "context must be"),
        ({"hidden": 0}, "hidden must be"),
        ({"dim": 2.5}, "dim must be"),
        ({"norm": "batch"}, "norm must be one of rms, layer; got 'batch'"),
        ({"separator": 23}, "separator must be a token id"),
    ],
)
def test_bad_configurations_are_refused(changes, words):
    with pytest.raises(StoriesError) as error:
        ModelConfig(**SMALL | changes)
    assert words in str(error.value)


def test_unknown_size_is_refused():
    for make in (size_config, lambda size, vocabulary: MlxLmConfig.of_size("llama", size, vocabulary)):
        with pytest.raises(StoriesError, match="size must be one of debug, small, base, large; got 'huge'"):
            make("huge", 100)


def test_rows_longer_than_the_context_and_cached_encoders_are_refused():
    with pytest.raises(StoriesError, match="rows of 25 tokens are longer than the model's context of 24"):
        build()(mx.zeros((1, 25), dtype=mx.int32))
    model = build(arch="encoder")
    with pytest.raises(StoriesError, match="cannot use a key-value cache"):
        model(mx.zeros((1, 2), dtype=mx.int32), KVCache(model.config, 1))
