"""Decoding against the full forward, its stops, and its independence of the batch."""

from itertools import pairwise

import mlx.core as mx
import pytest

from mlxstories.backend import kernels
from mlxstories.errors import StoriesError
from mlxstories.generation import decoding
from mlxstories.generation.decoding import generate, stream
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.model import Decoder, MlxLmConfig, ModelConfig, Transformer, build_model

GREEDY = SamplingConfig(temperature=0)
WILD = SamplingConfig(
    temperature=1.3, top_k=15, top_p=0.95, min_p=0.01, repetition_penalty=1.2, no_repeat_ngram=3
)
PROMPTS = [[5, 6, 7], [], [8], [3, 4, 5, 6, 7, 8, 9]]


@pytest.fixture(scope="module", params=["rope", "learned", "sinusoidal"])
def model(request):
    mx.random.seed(11)
    config = ModelConfig(
        29,
        dim=32,
        layers=2,
        heads=2,
        context=24,
        positions=request.param,
        separator=0,
        dropout=0.3,
        tied=False,
    )
    model = Transformer(config)
    # Far from uniform, so that the argmax is no matter of rounding, and with blocks that matter
    for block in model.blocks:
        block.attention.out.weight = 50 * block.attention.out.weight
        block.feed_forward.down.weight = 50 * block.feed_forward.down.weight
    model.head_projection.weight = 50 * model.head_projection.weight
    return model


def test_greedy_decoding_is_the_argmax_of_the_full_forward(model):
    told = generate(model, PROMPTS, max_tokens=30, sampling=GREEDY)
    model.eval()
    for prompt, story in zip(PROMPTS, told, strict=True):
        tokens = [0, *prompt]
        while len(tokens) <= 24:
            token = int(mx.argmax(model(mx.array([tokens]))[0, -1]))
            if token == 0:
                break
            tokens.append(token)
        assert story.tokens == tokens[1 + len(prompt) :]
        assert story.reason == ("context" if len(tokens) == 25 else "end")
    model.train()


def test_a_seed_fixes_the_text_and_rows_do_not_depend_on_each_other(model):
    def tell(prompts, seed):
        return generate(model, prompts, max_tokens=12, sampling=WILD, seed=seed)

    first = tell(PROMPTS, 4)
    assert first == tell(PROMPTS, 4) != tell(PROMPTS, 5)
    assert tell(PROMPTS[:1], 4) == first[:1] and tell(PROMPTS[:3], 4) == first[:3]
    assert len({tuple(story.tokens) for story in tell([[5]] * 4, 4)}) > 1
    for row, prompt in enumerate(PROMPTS):
        streamed = list(stream(model, prompt, max_tokens=12, sampling=WILD, seed=4, row=row))
        assert streamed == first[row].tokens


def test_options_hold_in_the_text(model):
    sampling = SamplingConfig(temperature=1.5, no_repeat_ngram=2)
    for prompt, story in zip(
        PROMPTS, generate(model, PROMPTS, max_tokens=20, sampling=sampling), strict=True
    ):
        text = [*prompt, *story.tokens]
        pairs = list(pairwise(text))
        assert len(set(pairs)) == len(pairs) and 0 not in story.tokens


def test_a_story_stops_at_its_length_or_the_context(model):
    for story in generate(model, PROMPTS, max_tokens=2, sampling=GREEDY):
        assert (len(story.tokens), story.reason, story.finished) == (2, "max_tokens", False)
    full = generate(model, [[5] * 23], max_tokens=9, sampling=GREEDY)[0]
    assert (len(full.tokens), full.reason) in {(1, "context"), (0, "end")}
    assert generate(model, [], max_tokens=2, sampling=GREEDY) == []
    assert len(generate(model, [[0, 28]], max_tokens=1, sampling=GREEDY)) == 1  # the first and the last id


def test_dropout_is_off_and_the_mode_is_kept(model):
    assert model.training
    told = generate(model, [[5]], max_tokens=8, sampling=GREEDY)
    assert told == generate(model, [[5]], max_tokens=8, sampling=GREEDY)
    assert model.training


def test_end_ends_each_row_by_itself(model):
    told = generate(model, [[]] * 40, max_tokens=30, sampling=SamplingConfig(temperature=4.0), seed=1)
    assert {story.reason for story in told} == {"end", "context"}
    for story in told:
        assert 0 not in story.tokens
        assert (len(story.tokens) == 24) == (story.reason == "context")


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        (
            [5] * 24,
            {},
            "prompt has 24 tokens and the model's context is 24 with the story's start; shorten it to at most 23",
        ),
        ([29], {}, "ids outside"),
        ([5], {"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ([5], {"seed": -1}, "seed must be in"),
    ],
)
def test_bad_requests_are_refused(model, prompt, options, words):
    with pytest.raises(StoriesError, match=words):
        generate(model, [prompt], **{"max_tokens": 3, "sampling": GREEDY} | options)


def test_encoders_are_refused_with_the_reason():
    encoder = Transformer(ModelConfig(29, dim=16, layers=1, heads=2, arch="encoder"))
    with pytest.raises(StoriesError, match="encoder cannot tell stories"):
        generate(encoder, [[]], max_tokens=3, sampling=GREEDY)


@pytest.mark.parametrize("kind", ["mixing", "mlx-lm"])
def test_the_cache_grows_unseen(kind, monkeypatch):
    """Room for a few tokens more, or for the whole context from the start: the same stories."""
    mx.random.seed(4)
    if kind == "mixing":
        model = Transformer(ModelConfig(29, dim=32, layers=2, heads=2, context=30, separator=0, mixing=3))
        model.blocks[1].neighbours.taps = mx.random.normal((2, 32))
    else:
        model = build_model(MlxLmConfig.of_size("llama", "debug", 29, context=30))
    widened, widen = [], type(model.new_cache(1)).widen

    def seen(cache, room):
        widened.append(room)
        widen(cache, room)

    monkeypatch.setattr(type(model.new_cache(1)), "widen", seen)
    monkeypatch.setattr(kernels, "streams", lambda: [mx.default_stream(mx.cpu)])
    told = {}
    for block in (4, 64):
        monkeypatch.setattr(decoding, "BLOCK", block)
        told[block] = generate(
            model, PROMPTS, max_tokens=12, sampling=SamplingConfig(temperature=1.5), seed=2
        )
        assert widened == ([8, 12, 16, 20] if block == 4 else []), block
        widened.clear()
    assert told[4] == told[64]


def test_one_step_is_traced_for_prompts_of_every_length(model, monkeypatch):
    traced, call = [], Decoder.__call__

    def counted(self, tokens, cache):
        traced.append(tokens.shape)
        return call(self, tokens, cache)

    monkeypatch.setattr(Decoder, "__call__", counted)
    generate(model, PROMPTS, max_tokens=12, sampling=GREEDY)
    assert len(traced) == min(len(kernels.streams()), len(PROMPTS))
