"""Samplers against cases worked by hand and, where they overlap, against mlx-lm's."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.errors import StoriesError
from mlxstories.generation import sampling
from mlxstories.generation.sampling import SamplingConfig, make_sampler

# probabilities 0.4, 0.1, 0.3, 0.2
LOGITS = mx.log(mx.array([[0.4, 0.1, 0.3, 0.2]]))
NO_HISTORY = mx.full((1, 8), -1, dtype=mx.int32)


def kept(logits) -> list[int]:
    return np.flatnonzero(np.isfinite(np.array(logits)[0])).tolist()


def history(*tokens) -> mx.array:
    return mx.array([[-1] * (8 - len(tokens)) + list(tokens)])


@pytest.mark.parametrize(
    ("k", "tokens"), [(1, [0]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k(k, tokens):
    assert kept(sampling.top_k(LOGITS, k)) == tokens


@pytest.mark.parametrize(
    ("p", "tokens"),
    [(0.01, [0]), (0.39, [0]), (0.41, [0, 2]), (0.69, [0, 2]), (0.71, [0, 2, 3]), (0.95, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_p(p, tokens):
    assert kept(sampling.top_p(LOGITS, p)) == tokens


def test_top_p_of_equal_tokens_keeps_as_many_as_needed():
    assert len(kept(sampling.top_p(mx.zeros((1, 4)), 0.5))) == 2


@pytest.mark.parametrize(
    ("p", "tokens"), [(0.2, [0, 1, 2, 3]), (0.3, [0, 2, 3]), (0.6, [0, 2]), (0.9, [0]), (1.0, [0])]
)
def test_min_p(p, tokens):
    assert kept(sampling.min_p(LOGITS, p)) == tokens


def test_temperature_sharpens():
    probabilities = mx.softmax(sampling.temperature(LOGITS, 0.5), axis=-1)
    np.testing.assert_allclose(np.array(probabilities)[0], np.array([16, 1, 9, 4]) / 30, rtol=1e-5)


def test_repetition_penalty_lowers_what_was_said_whatever_its_sign():
    logits = mx.array([[2.0, -2.0, 1.0, -1.0]])
    penalized = sampling.repetition_penalty(logits, history(0, 1, 0), 2.0)
    assert penalized.tolist() == [[1.0, -4.0, 1.0, -1.0]]
    assert sampling.repetition_penalty(logits, NO_HISTORY, 2.0).tolist() == logits.tolist()


@pytest.mark.parametrize(
    ("said", "n", "forbidden"),
    [
        ((1, 2, 3, 1, 2), 3, [3]),
        ((1, 2, 3, 1, 2), 2, [3]),
        ((1, 2, 3, 1, 2), 1, [1, 2, 3]),
        ((1, 2, 3, 1, 2), 4, []),
        ((1, 2, 0, 2, 3, 2), 2, [0, 3]),
        ((2, 2, 2), 3, [2]),
        ((2,), 2, []),
        ((), 1, []),
        ((1, 2), 9, []),
    ],
)
def test_no_repeat_ngram(said, n, forbidden):
    allowed = kept(sampling.no_repeat_ngram(LOGITS, history(*said), n))
    assert [token for token in range(4) if token not in allowed] == forbidden


def test_the_order_is_penalty_temperature_top_k_top_p_min_p():
    # Doubled temperature brings 0.4 0.1 0.3 0.2 to 0.325 0.163 0.282 0.230: top-p 0.6 then keeps two of
    # four, and three of them if it came before the temperature
    keys = mx.stack([mx.random.key(i) for i in range(400)])
    logits = mx.broadcast_to(LOGITS, (400, 4))
    empty = mx.broadcast_to(NO_HISTORY, (400, 8))
    drawn = make_sampler(SamplingConfig(temperature=2.0, top_p=0.62))(logits, empty, keys)
    assert set(drawn.tolist()) == {0, 2, 3}
    drawn = make_sampler(SamplingConfig(top_p=0.62))(logits, empty, keys)
    assert set(drawn.tolist()) == {0, 2}
    # top-k renormalises before top-p: of 0.4 and 0.3 the first holds 0.57
    drawn = make_sampler(SamplingConfig(top_k=2, top_p=0.55))(logits, empty, keys)
    assert set(drawn.tolist()) == {0}


def test_temperature_zero_is_greedy_after_penalties():
    greedy = make_sampler(SamplingConfig(temperature=0, no_repeat_ngram=1))
    assert greedy(LOGITS, NO_HISTORY, mx.random.key(0)[None]).tolist() == [0]
    assert greedy(LOGITS, history(0), mx.random.key(0)[None]).tolist() == [2]


def test_draws_follow_the_probabilities_and_each_rows_key():
    keys = mx.random.split(mx.random.key(3), 20_000)
    drawn = sampling.draw(mx.broadcast_to(LOGITS, (20_000, 4)), keys)
    shares = np.bincount(np.array(drawn), minlength=4) / 20_000
    np.testing.assert_allclose(shares, [0.4, 0.1, 0.3, 0.2], atol=0.015)
    assert sampling.draw(mx.broadcast_to(LOGITS, (5, 4)), keys[:5]).tolist() == drawn[:5].tolist()


def test_a_forbidden_token_is_never_drawn():
    logits = mx.full((200_000, 50), -mx.inf)
    logits[:, 20], logits[:, 21], logits[:, 30] = 0.0, -60.0, 0.0
    drawn = np.array(sampling.draw(logits, mx.random.split(mx.random.key(1), len(logits))))
    assert set(drawn) == {20, 30} and abs((drawn == 20).mean() - 0.5) < 0.01


@pytest.mark.parametrize(("number", "drawn"), [(0.0, 1), (1.0, 2)])
def test_the_ends_of_the_random_numbers_draw_the_first_and_the_last_allowed_token(monkeypatch, number, drawn):
    monkeypatch.setattr(mx.random, "uniform", lambda shape, key: mx.full(shape, number))
    logits = mx.array([[-mx.inf, 0.0, 1.0, -mx.inf]])
    assert sampling.draw(logits, mx.random.key(0)[None]).tolist() == [drawn]


@pytest.fixture
def uncompiled():
    """mlx-lm compiles its filters anew for every threshold."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.parametrize(("p", "low", "k"), [(0.1, 0.01, 1), (0.5, 0.1, 4), (0.9, 0.5, 9), (0.97, 0.9, 11)])
def test_filters_equal_mlx_lms(p, low, k, uncompiled):
    theirs = pytest.importorskip("mlx_lm.sample_utils")
    logits = 3 * mx.random.normal((50, 12), key=mx.random.key(k))
    log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    for ours, other in (
        (sampling.top_k(log_p, k), theirs.apply_top_k(log_p, k)),
        (sampling.top_p(log_p, p), theirs.apply_top_p(log_p, p)),
        (sampling.min_p(log_p, low), theirs.apply_min_p(log_p, low)),
    ):
        assert np.isfinite(np.array(ours)).tolist() == np.isfinite(np.array(other)).tolist()


def test_repetition_penalty_equals_mlx_lms():
    theirs = pytest.importorskip("mlx_lm.sample_utils")
    logits = mx.random.normal((1, 12), key=mx.random.key(1))
    said = [3, 5, 5, 11]
    expected = theirs.make_repetition_penalty(1.3)(said, mx.array(logits))
    np.testing.assert_allclose(
        np.array(sampling.repetition_penalty(logits, history(*said), 1.3)), np.array(expected), rtol=1e-6
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"repetition_penalty": math.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": 1},
        {"repetition_penalty": 0},
        {"no_repeat_ngram": -2},
    ],
)
def test_bad_options_are_refused_by_name(bad):
    with pytest.raises(StoriesError, match=f"{next(iter(bad))} must be .*; got"):
        SamplingConfig(**bad)
