"""Small measurements that a second set of public reports asked for."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.nn.utils import checkpoint
from tiny import B, T, Tiny, V, subject

from mlxstories.ladder import climb  # noqa: F401  (registers the checks)
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.untaught import heads, untaught
from mlxstories.ladder.bench.loss.left_out import left_out
from mlxstories.ladder.bench.model.derivative import derivative_in_training
from mlxstories.ladder.registry import CHECKS


def judged(name: str, **fields):
    """(code, severity) of what a check says."""
    bench = Bench(subject(**fields))
    with bench.protected():
        check = CHECKS[name]
        return [(draft.code, draft.severity) for draft in check.ask(bench, check.gauges()).drafts]


class Dropped(Tiny):
    """The tiny model with dropout, computed again on the way back if ``again``, with the masks drawn inside or out."""

    def __init__(self, again: bool, inside: bool):
        super().__init__()
        self.again, self.inside = again, inside

    def __call__(self, tokens):
        x = self.embed(tokens)

        def drawn():
            return mx.random.bernoulli(0.5, x.shape) * 2 if self.training else mx.ones(x.shape)

        outside = None if self.inside else drawn()

        def branch(x):
            return mx.tanh(self.mix(x)) * (drawn() if outside is None else outside)

        return self.head(x + (checkpoint(self, branch) if self.again else branch)(x))


DRAWS = "the backward pass draws what the forward pass drew"


def test_dropout_drawn_again_on_the_way_back_is_an_error():
    assert judged(DRAWS, model=lambda: Dropped(True, True)) == [("backward-mismatch", "error")]


@pytest.mark.parametrize("again, inside", [(True, False), (False, True), (False, False)])
def test_dropout_drawn_once_is_left_alone(again, inside):
    bench = Bench(subject(model=lambda: Dropped(again, inside)))
    assert derivative_in_training(bench).missing < 0.03
    assert judged(DRAWS, model=lambda: Dropped(again, inside)) == []


def test_a_model_without_randomness_has_no_derivative_in_training():
    assert derivative_in_training(Bench(subject())) is None


class Digits:
    eos_id = V - 1  # no text holds it

    def encode(self, text):
        return [int(c, V) for c in text]

    def decode(self, ids):
        return "".join("0123456789abc"[i] for i in ids)


TEXTS = [
    "".join("0123456789ab"[i] for i in np.random.default_rng(n).integers(0, V - 1, 60)) for n in range(40)
]


def leaving_out(token):
    def loss(model, batch):
        kept = batch.mask * (batch.targets != token)
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (nats * kept).sum() / mx.maximum(kept.sum(), 1)

    return loss


def test_an_id_that_the_loss_leaves_out_is_found_and_weighed():
    fields = {"loss": leaving_out(3), "tokenizer": Digits(), "train_texts": TEXTS}
    found = left_out(Bench(subject(**fields)))
    inner = "".join(text.strip(text[0] + text[-1]) for text in TEXTS)
    assert list(found.shares) == [3] and found.tried == V - 1
    assert found.shares[3] == pytest.approx(inner.count("3") / len(inner), abs=0.01)
    assert judged("the loss leaves out no token of the texts", **fields) == [("wrong-loss", "error")]


def test_a_loss_of_some_places_leaves_out_no_id():
    def second_half(model, batch):
        late = batch.mask * (mx.arange(T) >= T // 2)
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        return (nats * late).sum() / late.sum()

    for loss in (second_half, leaving_out(-100)):
        assert left_out(Bench(subject(loss=loss, tokenizer=Digits(), train_texts=TEXTS))).shares == {}


def divided_by(more):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets) * batch.mask
        return nats.sum() / (batch.mask.sum() + more * len(batch.mask))

    return loss


def test_one_more_cell_for_each_row_is_told_from_a_mean():
    name = "the loss counts tokens alike"
    assert judged(name, loss=divided_by(1)) == [("wrong-normalisation", "warning")]
    assert judged(name, loss=divided_by(0)) == []


def rows_of(texts, length=T):
    """Windows of each text, one after the other."""
    ids = [Digits().encode(text) for text in texts]
    return np.array([row[at : at + length + 1] for row in ids for at in range(0, len(row) - length, length)])


def dealt(table):
    for at in range(0, len(table) - B + 1, B):
        rows = table[at : at + B]
        yield mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


def of_texts(trained, val, texts=None, length=T):
    return Bench(
        subject(
            train_batches=lambda seed: dealt(
                np.random.default_rng(seed).permutation(rows_of(trained, length))
            ),
            val_batches=lambda: dealt(rows_of(val)),
            tokenizer=Digits(),
            train_texts=texts or TEXTS,
            val_texts=val,
        )
    )


def mixed(texts):
    """Pieces of texts, too short to be taken for the texts themselves."""
    count = len(texts)
    return ["".join(texts[(n + i) % count][7 * i : 7 * i + 7] for i in range(8)) for n in range(count)]


def test_rows_of_a_source_that_is_never_read_lack_what_others_do_not():
    """A source of few pairs, which validation repeats, beside digits at random."""
    pairs = ["ab" * 4 + "".join(f"b{TEXTS[n][i]}" for i in range(26)) for n in range(12)]
    again = ["ab" * 30 for _ in range(4)]
    unread = untaught(of_texts(TEXTS, mixed(TEXTS) + again, TEXTS + pairs))
    read = untaught(of_texts(TEXTS + pairs, mixed(TEXTS) + again, TEXTS + pairs))
    assert unread.of_a_kind > read.of_a_kind and read.of_a_kind < 0.02 and unread.median < 0.1


def test_texts_that_are_validation_itself_are_no_lost_teaching():
    found = untaught(of_texts(TEXTS[:30], TEXTS[30:]))
    assert found.of_a_kind == 0 and found.median == 0


def test_the_rest_of_each_text_is_told_from_a_part_of_the_texts():
    long = ["".join(TEXTS[n : n + 4]) for n in range(0, 32, 4)]
    cut = heads(of_texts([text[:41] for text in long], TEXTS[:4], long, 40))
    some = heads(of_texts(long[:3], TEXTS[:4], long, 40))
    assert cut.texts == some.texts == 8
    assert cut.rest < 0.1 < some.rest and some.head < 0.5


class Balanced(Tiny):
    """Keeps a figure of all tokens for the loss to add; ``open`` is what the loss sees of the future besides."""

    def __call__(self, tokens, future=0.0):
        self.future = future
        self._balance = self.mix(self.embed(tokens)).square().mean()
        return super().__call__(tokens)


def with_balance(future):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs, future), batch.targets)
        return (nats * batch.mask).sum() / batch.mask.sum() + model._balance

    return loss


def test_a_term_of_all_tokens_is_no_sight_of_the_future():
    name = "the loss sees no later token"
    assert judged(name, model=Balanced, loss=with_balance(0.0)) == []
    assert judged(name, model=Balanced, loss=with_balance(0.3)) == [("future-leak", "error")]


class Tapped(Tiny):
    """Mixes each embedding with the two before it, channel by channel."""

    def __init__(self):
        super().__init__()
        self.taps = mx.full((3, 16), 1 / 3)

    def __call__(self, tokens):
        x = self.embed(tokens)
        back = (mx.pad(x, [(0, 0), (n, 0), (0, 0)])[:, : x.shape[1]] for n in range(3))
        return self.head(sum(tap * each for tap, each in zip(self.taps, back, strict=True)))


class Constant(Tiny):
    def __init__(self):
        super().__init__()
        self.mix.weight = mx.full(self.mix.weight.shape, 0.1)


def test_taps_that_start_alike_are_no_copies_and_a_layer_of_one_number_is():
    assert judged("units start apart", model=Tapped) == []
    assert judged("units start apart", model=Constant) == [("bad-initialization", "error")]


class Shifting(Tiny):
    """Takes rotated embeddings where it is told to."""

    def __call__(self, tokens, turned=False):
        return super().__call__((tokens + 5) % V if turned else tokens)


def validated(model, batches):
    total = count = 0.0
    for batch in batches:
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets)
        total, count = total + (nats * batch.mask).sum().item(), count + batch.mask.sum().item()
    return {"loss": total / count}


def test_a_model_that_training_calls_otherwise_is_found():
    def loss(turned):
        return lambda model, batch: nn.losses.cross_entropy(
            model(batch.inputs, turned), batch.targets, reduction="mean"
        )

    name = "training and validation call the model alike"
    for turned, wanted in ((False, []), (True, [("wrong-loss", "error")])):
        assert judged(name, model=Shifting, loss=loss(turned), evaluate=validated) == wanted


@pytest.mark.parametrize(("sign", "penalty"), [(1, 0.1), (-1, 0)])
def test_a_term_of_the_weights_or_a_sign_is_no_other_call(sign, penalty):
    def loss(model, batch):
        nats = nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")
        return sign * nats + penalty * mx.square(model.head.weight).sum()

    assert judged("training and validation call the model alike", loss=loss, evaluate=validated) == []


class Counted(Tiny):
    """Counts on where it was last asked in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.at = 0

    def __call__(self, tokens):
        self.at += 0 if self.training else tokens.shape[1]
        return super().__call__((tokens + self.at) % V)


def test_a_count_that_training_goes_on_with_is_an_error():
    assert judged("validating and decoding change nothing", model=Counted)[0] == (
        "evaluation-changes-state",
        "error",
    )
    assert judged("validating and decoding change nothing") == []


def ruled(name: str, table: np.ndarray, skipped: int = 0):
    """What a data check says of rows, of which the first targets do not count."""

    def dealt_out(seed):
        for x, y in dealt(table):
            yield x, y, mx.broadcast_to(mx.arange(y.shape[1]) >= skipped, y.shape).astype(mx.float32)

    return judged(name, train_batches=dealt_out, tokenizer=Digits(), train_texts=TEXTS)


@pytest.mark.parametrize(
    "between, wanted",
    [("", [("end-never-trained", "error")]), ("c", []), ("0", [])],
    ids=["none", "end", "other"],
)
def test_texts_joined_with_nothing_between_them(between, wanted):
    assert ruled("texts that share a row are told apart", rows_of([between.join(TEXTS)], 40)) == wanted


def test_a_prompt_that_was_erased_with_its_labels():
    rows = rows_of(TEXTS, 40)[:, :-1]
    erased = rows.copy()
    erased[:, 1:9] = 0
    name = "the prompt is there to be read"
    assert ruled(name, erased, 8) == [("tokenizer-mismatch", "error")]
    assert ruled(name, rows, 8) == []


def test_padding_in_front_of_a_text_erases_nothing():
    rows = np.array([[0] * 10 + Digits().encode(text)[:30] for text in TEXTS])
    assert ruled("the prompt is there to be read", rows, 9) == []
