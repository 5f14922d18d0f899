"""Small measurements that a fifth set of public reports asked for."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import Tiny, V, batches, subject

from mlxstories.ladder import climb  # noqa: F401  (registers the checks)
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.foreign_ids import foreign
from mlxstories.ladder.bench.data.spacing import spacing
from mlxstories.ladder.bench.model.boldness import cut_off
from mlxstories.ladder.bench.model.entering import stream_start
from mlxstories.ladder.bench.step.plan import below_nought
from mlxstories.ladder.bench.training.memorising import memorising
from mlxstories.ladder.bench.training.trained import sight_after_training
from mlxstories.ladder.exchange import halving
from mlxstories.ladder.exchange.exchange import Gap
from mlxstories.ladder.exchange.halving import Proof
from mlxstories.ladder.exchange.inside_step import for_step
from mlxstories.ladder.registry import CHECKS


def judged(name: str, bench: Bench):
    """(code, severity) of what a check says."""
    with bench.protected():
        check = CHECKS[name]
        return [(draft.code, draft.severity) for draft in check.ask(bench, check.gauges()).drafts]


class Ended(Tiny):
    """The tiny model, whose logits end with a function."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def __call__(self, tokens):
        return self.end(super().__call__(tokens))


def some_forbidden(logits):
    odd = (mx.arange(logits.shape[1])[:, None] + mx.arange(V)) % 3 == 0
    return mx.where(odd, -1e9, logits)


@pytest.mark.parametrize("end", [nn.relu, lambda z: -nn.relu(z), lambda z: mx.clip(z, -0.1, 0.1)])
def test_logits_that_are_cut_off_are_an_error(end):
    bench = Bench(subject(model=lambda: Ended(end)))
    assert cut_off(bench).share > 0.2
    assert judged("logits run into no bound", bench) == [("bounded-logits", "error")]


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        nn.log_softmax,
        mx.tanh,
        lambda z: nn.leaky_relu(z, 0.3),
        lambda z: mx.where(mx.arange(V) < 3, -1e9, z),
        lambda z: mx.where(mx.arange(V) < 3, -mx.inf, z),
        some_forbidden,
    ],
)
def test_logits_that_are_bent_or_forbidden_are_not(end):
    assert judged("logits run into no bound", Bench(subject(model=lambda: Ended(end)))) == []


def line(total):
    return lambda: optim.AdamW(lambda step: 1e-2 * (1 - step / total), bias_correction=True)


@pytest.mark.parametrize(
    ("total", "updates", "first"),
    [(100, 150, 101), (100, 101, None), (1000, 100_000, 1001), (5, None, 6), (8, None, None)],
)
def test_the_first_rate_below_nought_is_found(total, updates, first):
    bench = Bench(subject(optimizer=line(total), updates=updates))
    assert below_nought(bench) == first
    wanted = [("schedule-out-of-step", "error")] if first else []
    assert judged("the rate stays above nought", bench) == wanted


@pytest.mark.parametrize(
    ("rate", "updates", "meant"),
    [
        (lambda step: 1e-2 * (1 - step / 200), 200, True),
        (optim.cosine_decay(1e-2, 200), 200, True),
        (lambda step: 1e-2 * (1 - step / 100), 200, False),  # below 0
        (optim.cosine_decay(1e-2, 50), 200, False),  # at its end after a quarter
        (lambda step: 5e-3 * (1 + mx.cos(step / 5)), 200, False),  # swings
        (lambda step: 1e-2 * (1 - step / 200), None, False),  # of a run that is not known
    ],
)
def test_a_rate_that_falls_with_the_stated_run_may_be_meant(rate, updates, meant):
    bench = Bench(subject(optimizer=lambda: optim.AdamW(rate), updates=updates))
    constant = next(change for change in for_step(bench) if "constant" in change.name)
    assert constant.wanted is meant


SIGNS = sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,:!\n"))
STORY = " ".join(
    f"Tom met {n}. He said: Hello, {n}! Then {n} ran Home." for n in ("Ann", "Bob", "Cleo", "Dan")
)


class Letters:
    def encode(self, text):
        return [SIGNS.index(c) + 1 for c in text]

    def decode(self, ids):
        return "".join(SIGNS[i - 1] for i in ids if i)


def of_letters(ids, texts, width=96):
    table = np.resize(np.array(ids, np.int32), (16, width + 1))
    rows = [(mx.array(part[:, :-1]), mx.array(part[:, 1:])) for part in np.split(table, 4)]
    return Bench(
        subject(
            model=lambda: None,
            vocab_size=len(SIGNS) + 4,
            tokenizer=Letters(),
            train_texts=texts,
            train_batches=lambda seed: rows,
        )
    )


@pytest.mark.parametrize(
    ("text", "row", "lost"),
    [
        (STORY, STORY, False),
        (STORY, re.sub(r"(?<=[.!]) ", "", STORY), True),
        (STORY, STORY.replace(" ", ""), True),
        (re.sub(r"(?<=[.!]) ", "\n", STORY), STORY, False),  # lines become spaces
        (STORY.replace(". ", ".  "), STORY, False),  # less white space
        (STORY, STORY.lower(), False),  # another text, of which nothing is known
        (STORY.replace(" ", ""), STORY, False),  # texts without white space
    ],
)
def test_white_space_lost_on_the_way_into_rows_is_an_error(text, row, lost):
    bench = of_letters(Letters().encode(row) * 20, [text] * 20)
    assert judged("white space is kept", bench) == ([("tokenizer-mismatch", "error")] if lost else [])


def test_nothing_is_said_of_what_stands_between_texts():
    bench = of_letters(Letters().encode(STORY) * 20, [STORY] * 20)
    assert spacing(bench).lost == 0 and spacing(bench).count > 20


def test_ids_read_in_halves_are_an_error():
    ids = np.array(Letters().encode(STORY) * 10, "<u4")
    bench = of_letters(np.frombuffer(ids.tobytes(), "<u2"), [STORY] * 10)
    assert foreign(bench).token == 0 and foreign(bench).share == pytest.approx(0.5, abs=0.01)
    assert judged("targets are what texts are made of", bench) == [("tokenizer-mismatch", "error")]


@pytest.mark.parametrize("every", [0, 4])
def test_marks_between_phrases_are_left_alone(every):
    ids = Letters().encode(STORY) * 10
    marked = [i for at, i in enumerate(ids) for i in ([i, 0] if every and at % every == 0 else [i])]
    assert judged("targets are what texts are made of", of_letters(marked, [STORY] * 10)) == []


@pytest.mark.parametrize(("every", "told"), [(24, []), (5, [("tokenizer-mismatch", "error")])])
def test_rows_are_read_between_a_few_marks_that_the_tokenizer_does_not_know(every, told):
    ids = Letters().encode(STORY) * 10
    mark = len(SIGNS) + 3  # the tokenizer raises an IndexError
    marked = [i for at, i in enumerate(ids) for i in ([i, mark] if at % every == 0 else [i])]
    assert judged("tokenizer fits the train batches", of_letters(marked, [STORY] * 10)) == told


@pytest.mark.parametrize(
    ("own", "helped", "plain", "with_it", "any_model"),
    [
        (1.938, 1.552, 1.832, 1.606, True),  # 20 %, of which 12 % a plain decoder gains, too
        (2.428, 2.171, 2.201, 2.121, False),  # 11 %, of which 4 %
        (2.0, 1.8, 1.8, 1.9, False),  # it does the plain one harm
    ],
)
def test_a_change_that_helps_a_plain_decoder_more_proves_nothing(own, helped, plain, with_it, any_model):
    runs = [SimpleNamespace(loss=x) for x in (own, helped, plain, with_it)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "gap", lambda one, two, margin=None: Gap(1 - two.loss / one.loss, 0.001))
        proof = Proof(None, runs[1], runs[0], (runs[2], runs[3]))
        assert proof.helps_any is any_model
    assert Proof(None, runs[1], runs[0]).helps_any is False


@pytest.mark.parametrize(("rate", "seen"), [(3e-2, True), (1e3, False)])
def test_weights_that_exploded_tell_nothing_of_leaks(rate, seen):
    bench = Bench(subject(optimizer=lambda: optim.Adam(rate, bias_correction=True)))
    with bench.protected():
        memorising(bench)
    assert (sight_after_training(bench) is not None) is seen


class Loud(nn.Module):
    """Two blocks that add their linear layer's output times a size."""

    def __init__(self, size):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 16), nn.Linear(16, V)
        self.blocks = [Branch(size) for _ in range(2)]

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(nn.RMSNorm(16)(x))


class Scaled(nn.Module):
    """A linear layer's output times a size."""

    def __init__(self, size):
        super().__init__()
        self.linear, self.size = nn.Linear(16, 16), size

    def __call__(self, x):
        return self.size * self.linear(x)


class Masked(nn.Module):
    """A block that takes more than the stream."""

    def __init__(self, size):
        super().__init__()
        self.norm, self.branch = nn.RMSNorm(16), Scaled(size)

    def __call__(self, x, mask):
        return x + self.branch(self.norm(x)) * mask


class LoudMasked(Loud):
    def __init__(self, size):
        super().__init__(size)
        self.blocks = [Masked(size) for _ in range(2)]

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mx.ones((tokens.shape[1], 1)))
        return self.head(nn.RMSNorm(16)(x))


class Branch(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.norm, self.linear, self.size = nn.RMSNorm(16), nn.Linear(16, 16), size

    def __call__(self, x):
        return x + self.size * self.linear(self.norm(x))


@pytest.mark.parametrize(("size", "loud"), [(1.0, False), (20.0, False), (1000.0, True)])
@pytest.mark.parametrize("model", [Loud, LoudMasked])
def test_what_blocks_add_is_measured(model, size, loud):
    bench = Bench(subject(model=lambda: model(size)))
    start = stream_start(bench)
    assert start.added * start.stream == pytest.approx(0.6 * size, rel=0.5)
    said = judged("scales inside the model", bench)
    assert (("extreme-scale", "error") in said) is loud


def scored(model, rows):
    nats = count = 0.0
    for x, y, mask in rows:
        nats += (nn.losses.cross_entropy(model(x), y) * mask).sum().item()
        count += mask.sum().item()
    return nats / count


@pytest.mark.parametrize(
    ("perplexity", "said"),
    [
        (math.exp, []),
        (lambda loss: 2.0**loss, [("metric-mismatch", "error")]),
        (lambda loss: 1.1 * math.exp(loss), [("metric-mismatch", "warning")]),
    ],
)
def test_perplexity_of_base_two_is_told(perplexity, said):
    def evaluate(model, rows):
        loss = scored(model, rows)
        return {"loss": loss, "perplexity": perplexity(loss)}

    bench = Bench(subject(evaluate=evaluate, val_batches=lambda: batches(7)))
    with bench.protected():
        memorising(bench)
    assert judged("other figures of validation", bench) == said
