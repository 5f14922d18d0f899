"""Mixing of neighbouring tokens: what it computes, within a story alone, and the same from a cache."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.model.decoder import Decoder
from mlxstories.model.mixing import Mixing
from mlxstories.optim.build import is_decayed, is_hidden_matrix

SHAPE = {"vocab_size": 23, "dim": 16, "layers": 2, "heads": 2, "context": 24}
STORIES = ([0, 5, 6, 7, 8], [0, 9, 3, 9, 12, 4, 7])


def build(separator=0, mixing=4) -> Transformer:
    mx.random.seed(1)
    model = Transformer(ModelConfig(**SHAPE, separator=separator, mixing=mixing))
    draw = np.random.default_rng(0)
    for block in model.blocks:
        if mixing > 1:
            block.neighbours.taps = mx.array(draw.standard_normal((mixing - 1, 16)), mx.float32)
    return model


def test_each_token_takes_in_those_before_it_in_its_story():
    draw = np.random.default_rng(0)
    x, taps = draw.standard_normal((1, 7, 16)).astype(np.float32), draw.standard_normal((2, 16))
    places = np.array([[0, 1, 2, 3, 0, 1, 2]])
    expected = x.astype(np.float64)
    for t in range(7):
        for n in range(1, min(2, places[0, t]) + 1):
            expected[0, t] += taps[n - 1] * x[0, t - n]
    mixing = Mixing(ModelConfig(**SHAPE, mixing=3))
    mixing.taps = mx.array(taps, mx.float32)
    mixed, last = mixing(mx.array(x), mx.array(places))
    np.testing.assert_allclose(np.array(mixed), expected, atol=1e-5)
    np.testing.assert_array_equal(np.array(last), x[:, -2:])


def test_a_new_model_is_the_one_without():
    mixed, plain = (Transformer(ModelConfig(**SHAPE, mixing=n)) for n in (4, 1))
    plain.load_weights([(k, v) for k, v in tree_flatten(mixed.parameters()) if not k.endswith("taps")])
    tokens = mx.array([STORIES[0]])
    np.testing.assert_array_equal(np.array(mixed(tokens)), np.array(plain(tokens)))
    assert mx.abs(build()(tokens) - build(mixing=1)(tokens)).max().item() > 1e-3


def test_packed_stories_have_the_logits_of_each_alone():
    model = build()
    packed = np.array(model(mx.array([STORIES[0] + STORIES[1]])))[0]
    alone = [np.array(model(mx.array([story])))[0] for story in STORIES]
    np.testing.assert_allclose(packed, np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("separator", [0, None])
@pytest.mark.parametrize("chunks", [[12], [1, 4, 7], [2, 2, 2, 6]])
def test_the_cache_gives_the_logits_of_the_full_forward(separator, chunks):
    model = build(separator)
    tokens = mx.array([STORIES[0] + STORIES[1], STORIES[1] + STORIES[0]])
    cache, logits, at = model.new_cache(2), [], 0
    for length in chunks:
        logits.append(model(tokens[:, at : at + length], cache))
        at += length
    np.testing.assert_allclose(np.array(mx.concatenate(logits, axis=1)), np.array(model(tokens)), atol=1e-5)


@pytest.mark.parametrize("separator", [0, None])
def test_decoding_gives_the_logits_of_the_full_forward(separator):
    model = build(separator)
    tokens = mx.array([STORIES[0] + STORIES[1]])
    full = np.array(model(tokens))[0]
    cache, decoder = model.new_cache(1), Decoder(model)
    model(tokens[:, :2], cache)
    for place in range(2, tokens.shape[1]):
        cache = type(cache).from_state(cache.state)
        np.testing.assert_allclose(np.array(decoder(tokens[:, place], cache))[0], full[place], atol=1e-5)


def test_taps_are_no_matrix():
    taps = build().blocks[0].neighbours.taps
    assert not is_hidden_matrix("blocks.0.neighbours.taps", taps)
    assert not is_decayed("blocks.0.neighbours.taps", taps)


@pytest.mark.parametrize(("changes", "word"), [({"mixing": 0}, "mixing"), ({"mixing": 99}, "mixing")])
def test_what_cannot_be_mixed_is_refused(changes, word):
    with pytest.raises(StoriesError, match=word):
        ModelConfig(**SHAPE, **changes)


def test_an_encoder_is_refused():
    with pytest.raises(StoriesError, match="encoder"):
        ModelConfig(**SHAPE, mixing=3, arch="encoder")
