"""Norms and dropout against the library's, what a change does to a plain decoder, and what validation judges."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_map
from tiny import Tiny, V, batches, subject

from mlxstories.batch import Batch
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.exchange import deepened, judging
from mlxstories.ladder.exchange.dropping import dropped_share
from mlxstories.ladder.exchange.exchange import ALL, AS_IS, LOSS, STEP, Exchange
from mlxstories.ladder.exchange.halving import Proof, best_in_step, controlled
from mlxstories.ladder.exchange.inside_model import for_model
from mlxstories.ladder.exchange.inside_modules import for_modules
from mlxstories.ladder.exchange.intervention import Intervention
from mlxstories.ladder.exchange.material import Measured, material
from mlxstories.ladder.exchange.reference import PlainDecoder, Shape
from mlxstories.ladder.exchange.training import Clock, Training

SHAPE = Shape(vocab=V, width=16, depth=2, hidden=32, positions=0, tied=True)


class Dropping(nn.Module):
    """Takes away a fifth; what is left is divided by ``scale``."""

    def __init__(self, scale: float = 0.8):
        super().__init__()
        self.scale = scale

    def __call__(self, x):
        return x * mx.random.bernoulli(0.8, x.shape) / self.scale if self.training else x


class Holding(Tiny):
    """With one more module, through which its average goes."""

    def __init__(self, held: nn.Module):
        super().__init__()
        self.held = held

    def __call__(self, tokens):
        return self.head(self.held(mx.tanh(self.mix(self.embed(tokens)))))


def names(model: nn.Module) -> list[str]:
    return [change.name for change in for_modules(model)]


def changed(model: nn.Module, words: str) -> nn.Module:
    next(c for c in for_modules(model) if words in c.name).model(model)
    return model


# --- dropout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "share"), [(nn.Dropout(0.3), 0.3), (Dropping(), 0.2), (nn.GELU(), 0.0)])
def test_the_plain_decoder_drops_the_share_that_the_subject_drops(held, share):
    bench = Bench(subject(model=lambda: Holding(held)))
    assert dropped_share(bench) == pytest.approx(share, abs=1e-6)
    assert Exchange(bench).shape.dropped == pytest.approx(share, abs=1e-6)


def test_a_plain_decoder_drops_in_training_alone():
    model = PlainDecoder(Shape(**{**SHAPE.__dict__, "dropped": 0.5}))
    tokens = mx.arange(12)[None] % V
    model.train()
    assert not mx.allclose(model(tokens), model(tokens), atol=1e-3)
    model.eval()
    assert mx.array_equal(model(tokens), model(tokens))


def test_what_drops_is_exchanged_for_the_librarys_dropout_of_the_same_share():
    model = changed(Holding(Dropping(scale=0.2)), "dropout")
    ones = mx.ones((64, 256))
    model.train()
    out = np.array(model.held(ones))
    assert (out == 0).mean() == pytest.approx(0.2, abs=0.02)
    assert out.max() == pytest.approx(1 / 0.8, rel=0.02)
    model.eval()
    assert mx.array_equal(model.held(ones), ones)


@pytest.mark.parametrize("held", [nn.Dropout(0.3), nn.GELU(), nn.ReLU(), nn.Linear(16, 16)])
def test_what_is_the_librarys_or_drops_nothing_stays(held):
    assert names(Holding(held)) == []


@pytest.mark.parametrize(("helped", "severities"), [(1.9, ["error"]), (1.98, [])])
def test_own_dropout_that_the_librarys_beats_needs_no_plain_decoder(monkeypatch, helped, severities):
    own = trained(2.0)
    proof = Proof(Intervention("dropout replaced by the library's", "model"), trained(helped), own)
    monkeypatch.setattr(judging, "best_in_model", lambda _, dropouts: [proof] if dropouts else [])
    runs = {AS_IS: own, LOSS: own, ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject(model=lambda: Holding(Dropping()))), runs=runs)
    with exchange.bench.protected():
        assert [draft.severity for draft in judging.judge(exchange)] == severities


# --- norms -------------------------------------------------------------------------------------------


class Norm(nn.Module):
    """Root mean square norm, whose weight is an offset from ``around``."""

    def __init__(self, around: float, weight: float = 0.0):
        super().__init__()
        self.weight, self._around = mx.full((16,), weight), around

    def __call__(self, x):
        return x * mx.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * (self._around + self.weight)


class Scale(nn.Module):
    """A small scale of a branch, which is no norm."""

    def __init__(self):
        super().__init__()
        self.weight = mx.full((16,), 1e-4)

    def __call__(self, x):
        return x * self.weight


GAIN = "the first weights of norms set to keep a scale of 1"


@pytest.mark.parametrize("weight", [0.0, 0.01, 30.0])
def test_a_norm_that_begins_far_from_1_is_set_to_keep_the_scale(weight):
    norm = nn.RMSNorm(16)
    norm.weight = mx.full((16,), weight)
    model = changed(Holding(norm), GAIN)
    out = model.held(mx.random.normal((8, 16)))
    assert float(mx.sqrt((out**2).mean())) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("held", [nn.RMSNorm(16), nn.LayerNorm(16), Norm(1.0), Scale()])
def test_a_norm_that_keeps_the_scale_and_a_scale_of_a_branch_stay(held):
    assert GAIN not in names(Holding(held))


def test_a_weight_that_is_an_offset_from_1_and_used_as_it_is_is_set():
    assert GAIN in names(Holding(Norm(0.0)))


def nought() -> nn.Module:
    norm = nn.RMSNorm(16)
    norm.weight = mx.zeros((16,))
    return Holding(norm)


@pytest.mark.long
def test_norms_that_begin_at_nought_are_tried_beside_other_rates():
    exchange = Exchange(
        Bench(subject(model=nought, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True)))
    )
    exchange.runs[AS_IS] = Training(exchange.bench, AS_IS, exchange.own_setup, Clock()).advance()
    told: list[str] = []
    exchange.tell = told.append
    best_in_step(exchange, rate=True)
    assert f"with {GAIN}" in told and "with updates multiplied by 3" in told


@pytest.mark.parametrize(("first", "said"), [(2.02, ("error", "model")), (2.3, ("warning", "step"))])
def test_first_weights_that_larger_updates_make_up_for_are_the_models_fault(monkeypatch, first, said):
    own = trained(2.3)
    proofs = [
        Proof(Intervention("updates multiplied by 3", "step", scale=3.0), trained(2.0), own),
        Proof(Intervention(GAIN, "model"), trained(first), own),
    ]
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: proofs if rate else [])
    runs = {AS_IS: own, STEP: trained(2.0), LOSS: trained(2.0), ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject()), runs=runs)
    with exchange.bench.protected():
        (draft,) = judging.judge(exchange)
    assert (draft.severity, draft.evidence["part"]) == said


DRAWN = "matrices that begin at 0 drawn as the library's"


def asleep():
    model = Tiny()
    model.mix.weight, model.head.weight = mx.zeros_like(model.mix.weight), mx.zeros_like(model.head.weight)
    return model


def test_matrices_that_begin_at_nought_are_drawn_and_no_others():
    assert all(change.name != DRAWN for change in for_model(Tiny(), V))
    model = asleep()
    embedding = model.embed.weight
    next(change for change in for_model(model, V) if change.name == DRAWN).model(model)
    assert float(model.mix.weight.std()) == pytest.approx((3 * 16) ** -0.5, rel=0.15)
    assert model.embed.weight is embedding


@pytest.mark.parametrize(("drawn", "said"), [(1.9, "error"), (2.09, "warning")])
def test_matrices_at_nought_that_larger_updates_make_up_for_may_be_meant(monkeypatch, drawn, said):
    own = trained(2.2)
    proof = Proof(Intervention(DRAWN, "model", redrawn=True), trained(drawn, redrawn=True), own)
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: [proof] if rate else [])
    runs = {AS_IS: own, STEP: trained(2.0), LOSS: trained(2.0), ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject(model=asleep)), runs=runs)
    with exchange.bench.protected():
        (draft,) = judging.judge(exchange)
    assert (draft.severity, draft.evidence["part"]) == (said, "model")


@pytest.mark.parametrize(
    ("gap", "updates", "told"),
    [(1.1, None, []), (1.14, None, ["warning"]), (1.14, 100, ["warning"]), (1.14, 10_000, [])],
)
def test_larger_updates_are_no_news_where_a_plain_step_or_the_rest_of_the_run_does_as_much(
    monkeypatch, gap, updates, told
):
    own = trained(2.0 * gap)
    larger = Proof(Intervention("updates multiplied by 3", "step", scale=3.0), trained(1.95), own)
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: [larger] if rate else [])
    plain = trained(2.0)
    exchange = Exchange(
        Bench(subject(updates=updates)),
        runs={AS_IS: own, STEP: plain, LOSS: plain, ALL: trained(2.0, redrawn=True)},
    )
    with exchange.bench.protected():
        assert [draft.severity for draft in judging.judge(exchange)] == told


@pytest.mark.parametrize(
    ("own", "helped", "told"),
    [
        (1.95, 1.813, []),
        (2.1, 1.95, ["warning"]),
        (2.2, 1.85, ["error"]),
    ],  # the first is near a sound Lookahead
)
def test_an_update_of_its_own_is_an_error_only_where_the_librarys_is_far_ahead(
    monkeypatch, own, helped, told
):
    before = trained(own)
    exchanged = Proof(Intervention("the library's update", "step", wanted=True), trained(helped), before)
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: [] if rate else [exchanged])
    plain = trained(1.75)
    exchange = Exchange(
        Bench(subject()), runs={AS_IS: before, STEP: plain, LOSS: plain, ALL: trained(1.75, redrawn=True)}
    )
    with exchange.bench.protected():
        assert [draft.severity for draft in judging.judge(exchange)] == told


def test_a_rate_that_is_only_slow_hides_no_model_that_is_far_behind(monkeypatch):
    own, plain = trained(2.3), trained(1.5, redrawn=True)
    slow = Proof(Intervention("updates multiplied by 3", "step", scale=3.0), trained(2.05), own)
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: [slow] if rate else [])
    inside = Proof(Intervention("something", "model"), trained(1.6), own)
    monkeypatch.setattr(judging, "best_in_model", lambda _: [inside])
    exchange = Exchange(
        Bench(subject()), runs={AS_IS: own, STEP: trained(2.0), LOSS: trained(2.0), ALL: plain}
    )
    with exchange.bench.protected():
        found = judging.judge(exchange)
    assert [(d.severity, d.evidence["part"]) for d in found] == [("error", "model"), ("warning", "step")]


# --- the control -------------------------------------------------------------------------------------


def trained(loss: float, *, redrawn: bool = False) -> Training:
    run = Training(None, "", None, Clock(), redrawn=redrawn, curve=[(160, loss)])
    run.measured = Measured(np.full(10, 4 * loss), np.full(10, 4.0))
    run._again = run
    return run


def test_what_a_change_brings_a_plain_decoder_is_taken_off():
    own, helped = trained(2.2), trained(2.0)
    plain, control = trained(2.1, redrawn=True), trained(2.0, redrawn=True)
    change = Intervention("something", "model")
    assert Proof(change, helped, own).gap().share == pytest.approx(0.1)
    assert Proof(change, helped, own, (plain, control)).gap().share == pytest.approx(0.05)
    harmed = Proof(change, helped, own, (control, plain))
    assert harmed.gap().share == pytest.approx(0.1)


@pytest.mark.long
def test_the_control_is_the_plain_decoder_with_the_same_change():
    exchange = Exchange(Bench(subject(optimizer=lambda: optim.AdamW(1e-2, bias_correction=True)))).go()
    (change,) = (c for c in for_model(Tiny(), V) if c.name == "attention scores lowered with the distance")
    before, after = controlled(exchange, Proof(change, exchange.own, exchange.own)).control
    assert before is exchange.runs[ALL]
    assert before.curve[0] != after.curve[0]  # the same weights, under another attention
    assert after.updates == before.updates
    own = Intervention("what Tiny alone can be given", "model")
    assert controlled(exchange, Proof(own, exchange.own, exchange.own)).control is None


@pytest.mark.parametrize(("control", "severity"), [(2.0, "error"), (1.85, "warning")])
def test_a_change_that_helps_any_model_proves_nothing(monkeypatch, control, severity):
    own, helped = trained(2.2), trained(2.0)
    plain = trained(2.0, redrawn=True)
    proof = Proof(Intervention("something", "model"), helped, own)
    with_control = Proof(proof.intervention, helped, own, (plain, trained(control, redrawn=True)))
    monkeypatch.setattr(judging, "best_in_model", lambda _: [proof])
    monkeypatch.setattr(judging, "controlled", lambda *_: with_control)
    exchange = Exchange(Bench(subject()), runs={AS_IS: own, LOSS: own, ALL: plain})
    with exchange.bench.protected():
        (draft,) = judging.judge(exchange)
    assert draft.severity == severity
    assert ("changed" in draft.evidence) is (severity == "error")


# --- a step of another kind ----------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "severity"), [(2.4, "warning"), (3.0, "error")])
def test_an_optimiser_that_is_only_slower_than_the_plain_one_is_a_warning(monkeypatch, own, severity):
    monkeypatch.setattr(judging, "best_in_step", lambda _, rate=False: [])
    runs = {AS_IS: trained(own), STEP: trained(2.0), LOSS: trained(2.0), ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject()), runs=runs)
    with exchange.bench.protected():
        (told,), (broken_off,) = judging.judge(exchange), judging.known(exchange)
    assert (told.severity, told.evidence["part"]) == (severity, "step")
    assert (broken_off.severity, broken_off.evidence["part"]) == ("warning", "step")


# --- what validation judges --------------------------------------------------------------------------


class Average:
    """A moving average of each model's weights, put in for validation; ``decay`` 1 keeps the first."""

    def __init__(self, decay: float):
        self.decay, self.models = decay, {}

    def step(self, model, optimizer, batch):
        if id(model) not in self.models:
            self.models[id(model)] = model, tree_map(lambda a: a + 0, model.parameters())
        loss, slope = nn.value_and_grad(model, nats)(model, batch)
        optimizer.update(model, slope)
        average = tree_map(
            lambda a, b: self.decay * a + (1 - self.decay) * b,
            self.models[id(model)][1],
            model.parameters(),
        )
        self.models[id(model)] = model, average
        mx.eval(model.parameters(), optimizer.state, average)
        return loss

    def evaluate(self, model, given):
        own = tree_map(lambda a: a, model.parameters())
        model.update(self.models.get(id(model), (model, own))[1])
        values = [nats(model, batch).item() for batch in given]
        model.update(own)
        return {"loss": sum(values) / len(values)}


def nats(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets).mean()


@pytest.mark.long
@pytest.mark.parametrize(("decay", "told"), [(0.9, 0), (1.0, 1)])
def test_weights_that_never_reach_validation_are_a_warning(decay, told):
    average = Average(decay)
    given = subject(
        val_batches=lambda: batches(99, 4),
        optimizer=lambda: optim.AdamW(1e-2, bias_correction=True),
        train_step=average.step,
        evaluate=average.evaluate,
    )
    found = deepened(diagnose(given, rungs=["data"]), given).findings
    assert [(f.severity, f.evidence["part"]) for f in found] == [("warning", "evaluation")] * told


# --- what is measured --------------------------------------------------------------------------------


def test_held_out_rows_are_of_all_that_is_validated():
    def two_sources():
        for source in (0, 1):
            for number in range(16):
                rows = np.random.default_rng((source, number)).integers(6 * source, 6 * source + 6, (4, 17))
                yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((4, 16)))

    held = material(Bench(subject(val_batches=two_sources))).held
    assert held.shape[0] == 48
    assert (held.inputs < 6).all(axis=1).sum() == 24 == (held.inputs >= 6).all(axis=1).sum()
