"""What decoding behind a cache does otherwise than the full pass: each case is told from the others by exchange."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.generation.cached import cached_steps
from mlxstories.ladder.registry import CHECKS

V, T, B, D, H = 23, 24, 4, 16, 2


class Cache:
    """Keys and values of a layer, and how many tokens they are."""

    def __init__(self):
        self.kept, self.held = None, 0

    def add(self, *new):
        self.kept = (
            new
            if self.kept is None
            else tuple(mx.concatenate(p, axis=2) for p in zip(self.kept, new, strict=True))
        )
        self.held += new[0].shape[2]
        return self.kept


class Cached(nn.Module):
    """Two layers of attention; a subclass breaks what happens behind the cache."""

    table = False

    def __init__(self):
        super().__init__()
        self.embed, self.places, self.head = nn.Embedding(V, D), nn.Embedding(T, D), nn.Linear(D, V)
        self.maps = [nn.Linear(D, 3 * D) for _ in range(2)]
        self.rope = nn.RoPE(D // H)

    def offset(self, held, size):
        return held

    def mask(self, held, size, cached):
        return mx.arange(held + size) <= mx.arange(held, held + size)[:, None]

    def placed(self, x, held):
        return x + self.places(mx.arange(x.shape[1]) + self.offset(held, x.shape[1])) if self.table else x

    def __call__(self, tokens, cache=None):
        cached, cache = cache is not None, cache or [Cache(), Cache()]
        held, size = cache[0].held, tokens.shape[1]
        x = self.placed(self.embed(tokens), held)
        for project, layer in zip(self.maps, cache, strict=True):
            q, k, v = project(x).reshape(*tokens.shape, 3 * H, D // H).swapaxes(1, 2).split(3, axis=1)
            if not self.table:
                q, k = (self.rope(part, offset=self.offset(held, size)) for part in (q, k))
            k, v = layer.add(k, v)
            scores = mx.where(self.mask(held, size, cached), q @ k.swapaxes(-1, -2), -1e9)
            x = x + (mx.softmax(scores, axis=-1) @ v).swapaxes(1, 2).reshape(x.shape)
        return self.head(x)


class Unmasked(Cached):
    def mask(self, held, size, cached):
        return mx.array(True) if cached else super().mask(held, size, cached)


class TopLeft(Cached):
    def mask(self, held, size, cached):
        return mx.tril(mx.ones((size, held + size))) > 0


class Unread(Cached):
    """The cache is filled, and what it hands back is not used."""

    def __call__(self, tokens, cache=None):
        for layer in cache or []:
            add = layer.add
            layer.add = lambda k, v, add=add: (add(k, v), (k, v))[1]
        return super().__call__(tokens, cache)

    def mask(self, held, size, cached):
        return mx.arange(size) <= mx.arange(size)[:, None]


class AtNought(Cached):
    def offset(self, held, size):
        return 0


class Table(Cached):
    table = True


class TableAtNought(AtNought):
    table = True


class OnlyWhole(Table):
    """A single token has no position."""

    def placed(self, x, held):
        return x if x.shape[1] == 1 else super().placed(x, held)


def decode(model, prompt, n, *, pieces=T, keep=True, twice=False):
    """Greedy behind a cache: the prompt in pieces, the cache not kept after it, or its last token given twice."""
    model.eval()
    cache, told = [Cache(), Cache()], []
    for at in range(0, len(prompt), pieces):
        logits = model(mx.array([prompt[at : at + pieces]]), cache)
    cache = cache if keep else [Cache(), Cache()]
    for index in range(n):
        told.append(int(logits[0, -1].argmax()))
        following = prompt[-1] if twice and not index else told[-1]
        logits = model(mx.array([[following]]), cache) if index < n - 1 else logits
    return told


def anew(model, prompt, n):
    model.eval()
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(mx.array([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def compiled(model, prompt, n):
    model.eval()
    step = mx.compile(lambda tokens: model(tokens))
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(step(mx.array([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def batches(seed):
    table = np.random.default_rng(seed).integers(0, V, (4 * B, T + 1))
    return ((mx.array(w[:, :-1]), mx.array(w[:, 1:])) for w in np.split(table, 4))


def bench(model=Cached, generate=decode) -> Bench:
    return Bench(Subject(model=model, vocab_size=V, train_batches=batches, generate=generate))


def ask(on: Bench):
    check = CHECKS["generation is the argmax"]
    return check.ask(on, check.gauges())


@pytest.mark.parametrize("model", [Cached, Table])
@pytest.mark.parametrize("pieces", [T, 4, 1])
def test_a_sound_cache_gives_the_logits_of_the_full_pass(model, pieces):
    on = bench(model, partial(decode, pieces=pieces))
    found = cached_steps(on)
    assert max(found.change, found.alone, found.mended) < 1e-4
    assert found.odd is None and not found.again
    assert found.reach == pytest.approx(found.whole_reach, abs=1e-4)
    assert min(found.reach) > 0.05
    assert ask(on).status == "passed"


@pytest.mark.parametrize(
    ("model", "generate", "words"),
    [
        (Unmasked, decode, "without a causal mask"),
        (TopLeft, decode, "does not depend on those at places 1, 2, 3, 4, 5"),
        (Cached, partial(decode, keep=False), "depends on none of them"),
        (Cached, partial(decode, twice=True), "last token a second time"),
        (AtNought, decode, "turned as at position 0 where 6 tokens are cached"),
        (
            TableAtNought,
            decode,
            "row 0 of a table of positions is looked up where the full pass looks up row 6",
        ),
        (OnlyWhole, decode, "looks up no position"),
    ],
)
def test_what_goes_wrong_behind_the_cache_is_told(model, generate, words):
    [draft] = ask(bench(model, generate)).drafts
    assert (draft.code, draft.severity) == ("cache-mismatch", "error")
    assert words in draft.message


@pytest.mark.parametrize(("model", "keep", "part"), [(Unread, True, "model"), (Cached, False, None)])
def test_a_cache_that_the_model_does_not_read_is_the_models_fault(model, keep, part):
    on = bench(model, partial(decode, keep=keep))
    assert cached_steps(on).handed is (part == "model")
    [draft] = ask(on).drafts
    assert draft.evidence.get("part") == part
    assert ("the model does not read it" in draft.message) is (part == "model")


def test_an_unmasked_prompt_is_told_apart_by_reading_its_tokens_one_by_one():
    found = cached_steps(bench(Unmasked))
    assert found.alone < 1e-4 < 0.05 < min(found.within, found.ahead)
    assert cached_steps(bench()).ahead < 1e-4


def test_a_model_that_tells_the_last_place_alone_leaves_open_what_is_wrong_with_the_prompt():
    class Last(Unmasked):
        def __call__(self, tokens, cache=None):
            logits = super().__call__(tokens, cache)
            return logits if cache is None else logits[:, -1:]

    on = bench(Last)
    assert cached_steps(on).ahead is None
    [draft] = ask(on).drafts
    assert draft.code == "cache-mismatch"
    assert "read at once gives other logits" in draft.message


@pytest.mark.parametrize("generate", [anew, compiled, lambda model, prompt, n: [0] * n])
def test_decoding_without_a_cache_is_not_measured(generate):
    assert cached_steps(bench(generate=generate)) is None


def test_logits_that_are_no_numbers_are_left_to_another_check():
    class Overflowing(Cached):
        def __call__(self, tokens, cache=None):
            logits = super().__call__(tokens, cache)
            return mx.where(logits > 0, mx.inf, logits) - mx.where(logits > 1, mx.inf, 0)

    assert ask(bench(Overflowing)).status in ("passed", "failed")
