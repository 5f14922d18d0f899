"""Parts exchanged for plain ones: which exchange helps names the part, a change inside it is the proof."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten, tree_map
from tiny import T, Tiny, V, batches, subject

from mlxstories.batch import Batch
from mlxstories.cli import main
from mlxstories.findings import Finding
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.exchange import deepened, estimate
from mlxstories.ladder.exchange.exchange import AS_IS, LOSS, Exchange, Gap
from mlxstories.ladder.exchange.influence import influence
from mlxstories.ladder.exchange.inside_model import for_model, wide_layers
from mlxstories.ladder.exchange.judging import known
from mlxstories.ladder.exchange.material import held_out, material
from mlxstories.ladder.exchange.order import shuffled
from mlxstories.ladder.exchange.reference import PlainDecoder, Shape, shape_of
from mlxstories.plots.ladder import figures
from mlxstories.storage.serialize import from_dict, to_dict


def weights(model: nn.Module) -> int:
    return sum(array.size for _, array in tree_flatten(model.parameters()))


def deep(**fields):
    """The exchange after no more than a look at the data."""
    fields.setdefault("optimizer", lambda: optim.AdamW(1e-2, bias_correction=True))
    given = subject(val_batches=lambda: batches(99, 4), **fields)
    return deepened(diagnose(given, rungs=["data"]), given)


def errors(diagnosis):
    return [f for f in diagnosis.findings if f.severity == "error"]


class Attending(nn.Module):
    """One head of causal attention, written out; scores are multiplied by ``times``."""

    def __init__(self, times: float = 1.0, size: int = 16):
        super().__init__()
        self.embed, self.places = nn.Embedding(V, size), nn.Embedding(T, size)
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.head, self.times = nn.Linear(size, V), times

    def __call__(self, tokens):
        x = self.embed(tokens) + self.places(mx.arange(tokens.shape[1]))
        scores = self.query(x) @ self.key(x).swapaxes(-1, -2) / x.shape[-1] ** 0.5
        past = mx.tri(x.shape[1], dtype=mx.bool_)
        shares = mx.softmax(mx.where(past, scores * self.times, -mx.inf), axis=-1)
        return self.head(x + shares @ self.value(x))


# --- the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [0, 32])
@pytest.mark.parametrize("tied", [True, False])
def test_a_reference_of_a_plain_decoder_is_of_its_kind_and_size(positions, tied):
    shape = Shape(vocab=50, width=32, depth=3, hidden=96, positions=positions, tied=tied)
    model = PlainDecoder(shape)
    found = shape_of(model, 50, 24)
    assert (found.width, found.depth, found.positions, found.tied) == (32, 3, positions, tied)
    assert abs(weights(PlainDecoder(found)) / weights(model) - 1) < 0.02


def test_where_a_model_begins_at_0_02_its_reference_does_and_is_not_told_to_begin_elsewhere():
    def drawn(at: float) -> nn.Module:
        model = PlainDecoder(Shape(vocab=50, width=32, depth=2, hidden=96, positions=0, tied=True))
        model.update(
            tree_map(lambda a: at * mx.random.normal(a.shape) if a.ndim == 2 else a, model.parameters())
        )
        return model

    shape = shape_of(drawn(0.02), 50, 24)
    matrices = [a for _, a in tree_flatten(PlainDecoder(shape).parameters()) if a.ndim == 2]
    assert len(matrices) > 8 and all(0.018 < a.std().item() < 0.022 for a in matrices)
    assert shape_of(drawn(0.005), 50, 24).deviation is not None  # as at the end of a branch
    assert shape_of(drawn(0.2), 50, 24).deviation is None
    first = "first scale of"
    assert not [change for change in for_model(drawn(0.02), 50) if first in change.name]
    assert [change for change in for_model(drawn(0.0005), 50) if first in change.name]


def test_a_reference_sees_no_later_token():
    model = PlainDecoder(Shape(vocab=11, width=16, depth=2, hidden=32, positions=0, tied=True))
    tokens = np.arange(12)[None] % 11
    changed = tokens.copy()
    changed[:, 7:] = 3
    one, two = model(mx.array(tokens)), model(mx.array(changed))
    assert mx.allclose(one[:, :7], two[:, :7], atol=1e-5)
    assert not mx.allclose(one[:, 7:], two[:, 7:], atol=1e-3)


# --- what the loss asks for --------------------------------------------------------------------------


def nats(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), batch.targets)


def last_place(model, batch):
    return nats(model, batch)[:, -1].mean()


def one_higher(model, batch):
    return nats(model, batch._replace(targets=(batch.targets + 1) % V)).mean()


def test_the_places_that_a_loss_depends_on_are_counted():
    assert influence(Bench(subject(loss=last_place))).share == pytest.approx(1 / T)
    assert influence(Bench(subject(loss=lambda m, b: nats(m, b).mean()))).share == 1


def test_the_ids_that_a_loss_asks_for_are_known():
    value, often = influence(Bench(subject(loss=one_higher))).offset
    assert value in (1, 1 - V) and often > 0.85


def test_an_id_that_the_loss_leaves_out_at_the_ends_of_rows_is_padding():
    def padded(seed):
        for batch in batches(seed):
            late = mx.arange(T) >= 12
            yield batch.inputs, mx.where(late, 0, mx.maximum(batch.targets, 1))

    def loss(model, batch):
        inputs, targets = batch
        real = targets != 0
        return (nn.losses.cross_entropy(model(inputs), targets) * real).sum() / real.sum()

    bench = Bench(subject(train_batches=padded, loss=loss))
    assert held_out(bench, bench.model()).tokens.max() == 12


def test_targets_that_are_the_inputs_are_shifted_as_the_loss_does():
    def same(seed):
        return [Batch(b.inputs, b.inputs, b.mask) for b in batches(seed)]

    def shifting(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs)[:, :-1], batch.targets[:, 1:]).mean()

    bench = Bench(subject(train_batches=same, loss=shifting))
    model = bench.model()
    held = material(bench).held
    logs = np.array(nn.log_softmax(model(mx.array(held.inputs))[:, :-1], axis=-1))
    by_hand = -np.take_along_axis(logs, held.inputs[:, 1:, None], -1).mean()
    assert held_out(bench, model).loss == pytest.approx(by_hand, abs=1e-5)


# --- the order of the data ---------------------------------------------------------------------------


def two_halves(sort: bool):
    """Rows that count up by 1 or 2, and rows that count down; all of one kind first, or mixed."""

    def epoch(seed):
        rng = np.random.default_rng(seed)
        kinds = np.arange(256) < 128 if sort else rng.permutation(256) % 2 == 0
        for at in range(0, 256, 4):
            steps = rng.integers(1, 3, (4, T + 1)) * np.where(kinds[at : at + 4], 1, -1)[:, None]
            rows = np.cumsum(steps, axis=1) % V
            # Each kind in an alphabet of its own, so that a batch's content tells it.
            rows = np.where(kinds[at : at + 4, None], rows // 2, V // 2 + rows // 2)
            yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((4, T)))

    return epoch


def test_rows_in_random_order_are_not_shuffled_again():
    assert shuffled(Bench(subject(train_batches=two_halves(False)))) is None


def test_sorted_rows_are_shuffled_and_none_is_lost():
    bench = Bench(subject(train_batches=two_halves(True)))
    epoch = material(bench).epoch
    new = np.concatenate([b.inputs for b in shuffled(bench)[: len(epoch)]])
    old = np.concatenate([b.inputs for b in epoch])
    assert sorted(map(bytes, new)) == sorted(map(bytes, old)) and not np.array_equal(new, old)


@pytest.mark.long
def test_an_order_that_hurts_is_an_error_of_the_data():
    mixed = two_halves(False)
    given = subject(
        train_batches=two_halves(True),
        val_batches=lambda: mixed(99),
        optimizer=lambda: optim.AdamW(1e-2, bias_correction=True),
    )
    found = [
        f for f in deepened(diagnose(given, rungs=["data"]), given).findings if f.code == "behind-reference"
    ]
    assert [f.where["part"] for f in found] == ["data"]
    assert "shuffled anew" in found[0].message and found[0].where["line"]


def test_an_order_that_hurts_is_told_where_the_exchange_is_broken_off():
    mixed = two_halves(False)
    exchange = Exchange(
        Bench(
            subject(
                train_batches=two_halves(True),
                val_batches=lambda: mixed(99),
                optimizer=lambda: optim.AdamW(1e-2, bias_correction=True),
            )
        )
    )

    def tell(name):
        if name == LOSS:  # what comes after the new order
            raise KeyboardInterrupt

    exchange.tell = tell
    with exchange.bench.protected(), pytest.raises(KeyboardInterrupt):
        exchange.go()
    assert [(d.code, d.where["part"]) for d in known(exchange)] == [("behind-reference", "data")]


# --- errors of the climb, proved ---------------------------------------------------------------------


@pytest.mark.long
def test_an_error_of_the_climb_is_told_what_its_mend_brings():
    given = subject(loss=one_higher, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))
    found = errors(deepened(diagnose(given, rungs=["init"]), given))
    assert [f.code for f in found] == ["wrong-loss"]
    before, after = (curve[-1][1] for curve in found[0].evidence["curves"].values())
    told = f"With a plain loss the held-out loss is {after:.3f} instead of {before:.3f}"
    assert told in found[0].message and "id +1" in found[0].message
    assert found[0].evidence["consequences"] == ["behind-reference"] and found[0].evidence["gap"] > 0.12


@pytest.mark.long
def test_what_the_exchange_finds_can_be_accepted():
    given = subject(loss=one_higher, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))
    found = deepened(diagnose(given, rungs=["data"], accept=["behind-reference"]), given)
    (known,) = [f for f in found.findings if f.code == "behind-reference"]
    assert found.healthy and known.severity == "warning" and known.evidence["accepted"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "remain"),
    [
        ("metric-mismatch", ["metric-mismatch", "behind-reference"]),
        ("targets-mismatched", ["targets-mismatched"]),
    ],
)
def test_an_error_of_what_no_training_depends_on_explains_no_gap(code, remain):
    given = subject(loss=one_higher, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))
    climbed = Diagnosis("tiny", [Finding(code, "error", "data", "as it was told")], [], 0.0)
    found = deepened(climbed, given)
    assert [f.code for f in errors(found)] == remain
    assert [f.code for f in found.consequences] == ["behind-reference"] * (2 - len(remain))


@pytest.mark.long
def test_an_error_of_the_rate_follows_from_a_loss_that_is_proved_wrong():
    given = subject(loss=one_higher, optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))
    climbed = Diagnosis("tiny", [Finding("learning-rate-too-large", "error", "sweep", "as told")], [], 0.0)
    found = deepened(climbed, given)
    assert [(f.code, f.evidence["part"]) for f in errors(found)] == [("behind-reference", "loss")]
    assert [f.code for f in found.consequences] == ["learning-rate-too-large"]
    assert found.findings[0].evidence["consequences"] == ["learning-rate-too-large"]


@pytest.mark.long
def test_an_error_of_the_rate_stays_where_a_plain_step_helps():
    given = subject(optimizer=lambda: optim.AdamW(0.5, bias_correction=True), val_batches=lambda: batches(9))
    climbed = Diagnosis("tiny", [Finding("learning-rate-too-large", "error", "sweep", "as told")], [], 0.0)
    assert [f.code for f in errors(deepened(climbed, given))] == ["learning-rate-too-large"]


# --- changes inside a model --------------------------------------------------------------------------


def change(model, words):
    return next(c for c in for_model(model, V) if words in c.name)


def test_scores_multiplied_from_outside_are_those_of_a_model_that_multiplies_them():
    own, other = Attending(), Attending(times=8.0)
    other.update(own.parameters())
    tokens = mx.array(np.arange(2 * T).reshape(2, T) % V)
    found = change(own, "scores multiplied by 8")
    before, softmax, wanted = own(tokens), mx.softmax, other(tokens)
    with found.around():
        assert mx.allclose(own(tokens), wanted, atol=1e-5)
    assert mx.softmax is softmax
    assert mx.array_equal(own(tokens), before)
    assert found.site["file"] == __file__


def test_stopped_gradients_flow_again():
    stopped = mx.grad(lambda x: (mx.stop_gradient(x) * x).sum())(mx.array([3.0]))
    with change(Tiny(), "stop_gradient").around():
        flowing = mx.grad(lambda x: (mx.stop_gradient(x) * x).sum())(mx.array([3.0]))
    assert (stopped.item(), flowing.item()) == (3.0, 6.0)


def test_a_first_scale_far_from_the_librarys_is_set_to_it_and_no_other():
    names = [c.name for c in for_model(Tiny(), V)]
    assert not any("first scale" in name for name in names)
    model = Tiny()
    model.mix.weight = 20 * model.mix.weight
    change(model, "first scale of mix").model(model)
    assert float(model.mix.weight.std()) == pytest.approx((3 * 16) ** -0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("times", "named"), [(1, []), (4, []), (20, ["first scale of mix set to the library's"])]
)
def test_a_layer_that_begins_far_too_large_is_tried_beside_other_rates_and_a_table_is_not(times, named):
    model = Tiny()
    model.mix.weight, model.embed.weight = times * model.mix.weight, times * model.embed.weight
    assert [c.name for c in wide_layers(model)] == named


def test_a_change_of_a_module_leaves_others_of_its_class_alone():
    model, other = Attending(), Attending()
    change(model, "positions added").model(model)
    assert type(other.embed) is nn.Embedding
    assert type(model.embed) is not nn.Embedding


# --- the exchange ------------------------------------------------------------------------------------


def in_16_bits():
    model = Tiny()
    model.set_dtype(mx.bfloat16)
    return model


@pytest.mark.parametrize("model", [Tiny, pytest.param(in_16_bits, marks=pytest.mark.long)])
def test_a_sound_setup_is_not_accused_and_its_curves_are_kept(model):
    diagnosis = deep(model=model)
    assert errors(diagnosis) == []
    curves = diagnosis.rungs[-1].figures["exchange"]
    assert set(curves) >= {"as it is", "plain step and loss", "all plain"}
    assert min(loss for _, loss in curves["all plain"]) < 0.95  # ln 2 is the entropy of the rows
    assert "exchange" in figures(diagnosis)


def after_a_long_warmup():
    warmup = optim.linear_schedule(0.0, 1e-2, 400)
    return optim.AdamW(optim.join_schedules([warmup, lambda _: mx.array(1e-2)], [400]), bias_correction=True)


@pytest.mark.long
@pytest.mark.parametrize("model", [Tiny, in_16_bits])  # rounds away the updates of a warmup
def test_a_warmup_that_would_outlast_the_exchange_is_cut_short(model):
    diagnosis = deep(model=model, optimizer=after_a_long_warmup)
    assert errors(diagnosis) == []
    losses = dict(diagnosis.rungs[-1].figures["exchange"]["as it is"])
    assert losses[160] < 1.02 * dict(deep(model=model).rungs[-1].figures["exchange"]["as it is"])[160]


@pytest.mark.long
def test_a_rate_that_was_behind_early_on_is_gone_on_with_where_the_other_is_stuck():
    exchange = Exchange(Bench(subject(val_batches=lambda: batches(99, 4)))).go()
    good, rate = exchange.runs[LOSS], exchange.rates[LOSS]
    ((other, late),) = exchange.left[LOSS].items()
    # hardly trained at the default rate
    exchange.runs[LOSS], exchange.rates[LOSS] = exchange.runs[AS_IS], 0.0
    exchange.left[LOSS] |= {rate: good}
    exchange.at_any_rate(LOSS)
    assert late.updates == good.updates and exchange.rates[LOSS] in (rate, other)
    assert exchange.runs[LOSS].loss == min(good.loss, late.loss) < exchange.runs[AS_IS].loss
    assert not exchange.left.get(LOSS)


@pytest.mark.long
def test_a_rate_that_is_only_slow_is_a_warning():
    diagnosis = deep(optimizer=lambda: optim.AdamW(3e-4, bias_correction=True))
    assert errors(diagnosis) == []
    assert "updates multiplied by" in diagnosis.findings[0].message


@pytest.mark.long
def test_a_rate_that_is_only_slow_is_no_error_where_time_ends_before_more_of_it_was_tried():
    given = subject(optimizer=lambda: optim.AdamW(3e-5, bias_correction=True))

    def tell(name):
        if "multiplied" in name:
            raise KeyboardInterrupt

    diagnosis = deepened(diagnose(given, rungs=["data"]), given, tell=tell)
    assert diagnosis.rungs[-1].checks[0].detail.endswith("interrupted")
    assert [(f.code, f.severity) for f in diagnosis.findings] == [("behind-reference", "warning")]


def test_a_rate_that_ends_inside_the_epoch_is_the_steps_fault_and_holding_it_is_the_proof():
    spent = lambda: optim.AdamW(optim.linear_schedule(3e-3, 0.0, 12), bias_correction=True)  # noqa: E731
    (found,) = errors(deep(optimizer=spent, train_batches=lambda seed: batches(seed, 40)))
    assert (found.code, found.where) == ("behind-reference", "the step")
    assert found.evidence["changed"] == "the rate constant at its peak"
    assert found.evidence["gap"] > 0.1
    assert found.evidence["interval"][0] <= found.evidence["gap"] <= found.evidence["interval"][1]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        pytest.param(one_higher, "asks for the target's id +1", marks=pytest.mark.long),
        (last_place, "6% of the real places"),
    ],
)
def test_a_loss_that_asks_for_something_else_is_named_with_what_it_asks_for(loss, words):
    (found,) = errors(deep(loss=loss))
    assert (found.code, found.where["part"]) == ("behind-reference", "loss")
    assert words in found.message
    assert found.where["file"] == __file__


def foreign_inputs(model, batch):
    """In training most inputs are drawn at random."""
    drawn = mx.random.randint(0, V, batch.inputs.shape)
    kept = mx.random.uniform(shape=batch.inputs.shape) < 0.2
    seen = mx.where(kept, batch.inputs, drawn) if model.training else batch.inputs
    return nats(model, batch._replace(inputs=seen)).mean()


@pytest.mark.long
def test_a_loss_that_differs_in_training_alone_is_told_of_the_loss_and_may_be_meant():
    (found,) = [f for f in deep(loss=foreign_inputs).findings if f.rung == "exchange"]
    assert (found.severity, found.where["part"]) == ("warning", "loss")
    assert "may be meant" in found.message


@pytest.mark.long
def test_a_model_that_sees_the_future_is_ahead():
    (found,) = errors(deep(model=lambda: Tiny(1.0)))
    assert (found.code, found.where) == ("ahead-of-reference", "the model")
    assert from_dict(Finding, json.loads(json.dumps(to_dict(found))), "it").where == found.where


def test_broken_off_it_says_what_is_known():
    given = subject(loss=one_higher, val_batches=lambda: batches(99, 4))
    asked = []

    def tell(name):
        asked.append(name)
        if name == "all plain":
            raise KeyboardInterrupt

    diagnosis = deepened(diagnose(given, rungs=["data"]), given, tell=tell)
    assert [f.where["part"] for f in errors(diagnosis)] == ["loss"]
    assert diagnosis.rungs[-1].checks[0].detail.endswith("interrupted")


def test_out_of_time_before_it_begins_it_accuses_nobody():
    given = subject()
    diagnosis = deepened(diagnose(given, rungs=["data"]), given, seconds=0)
    assert errors(diagnosis) == []
    assert "out of time" in diagnosis.rungs[-1].checks[0].detail


def test_a_subject_that_fails_is_not_exchanged():
    given = subject(train_batches=lambda seed: [])
    line = deepened(diagnose(given, rungs=["data"]), given).rungs[-1].checks[0]
    assert (line.status, line.detail) == ("skipped", "meaningless after subject-error")


def test_the_estimate_is_some_seconds():
    assert 0 < estimate(subject()) < 300 and math.isfinite(estimate(subject()))


def test_the_estimate_counts_the_measurements_of_a_curve(monkeypatch):
    def slow(*args):
        time.sleep(0.1)
        return held_out(*args)

    monkeypatch.setattr("mlxstories.ladder.exchange.deep.held_out", slow)
    assert estimate(subject()) > 3.5 * 9 * 0.1


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import mlx.nn as nn
from tiny import batches, subject as sound, V

def loss(model, batch):
    return nn.losses.cross_entropy(model(batch.inputs), (batch.targets + 1) % V).mean()

def subject():
    return sound(loss=loss, val_batches=lambda: batches(99, 4))
"""


@pytest.mark.long
def test_the_command_writes_the_finding_and_draws_the_curves(tmp_path):
    file = tmp_path / "setup.py"
    file.write_text(SCRIPT.format(here=str(Path(__file__).parents[1])))
    told = ["--rung", "data", "--deep", "--json", str(tmp_path / "out.json"), "--export", str(tmp_path / "f")]
    result = CliRunner().invoke(main, ["debug", str(file), *told])
    assert result.exit_code == 1, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    found = next(f for f in report["findings"] if f["severity"] == "error")
    assert (found["code"], found["where"]["part"], found["where"]["line"]) == ("behind-reference", "loss", 7)
    assert report["rungs"][-1]["name"] == "exchange"
    assert (tmp_path / "f" / "exchange.png").is_file()


LOOP = """
import sys
sys.path.insert(0, {here!r})
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from tiny import Tiny, batches

model, optimizer = Tiny(), optim.AdamW(optim.linear_schedule(3e-3, 0.0, 12), bias_correction=True)

def loss(model, inputs, targets):
    return nn.losses.cross_entropy(model(inputs), targets).mean()

step = nn.value_and_grad(model, loss)
for epoch in range(50):
    for batch in batches(epoch, 40):
        value, slope = step(model, batch.inputs, batch.targets)
        optimizer.update(model, slope)
        mx.eval(model.parameters(), optimizer.state)
"""


@pytest.mark.long
def test_a_training_script_is_exchanged_as_it_is(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(LOOP.format(here=str(Path(__file__).parents[1])))
    told = ["--rung", "data", "--deep", "--json", str(tmp_path / "out.json")]
    result = CliRunner().invoke(main, ["debug", str(file), *told])
    assert result.exit_code == 1, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    found = next(f for f in report["findings"] if f["severity"] == "error")
    assert (found["code"], found["evidence"]["part"]) == ("behind-reference", "step")


def test_seeds_that_differ_leave_more_doubt_than_their_rows_do():
    alike, apart = (Gap(0.10 - by, 0.005).mean(Gap(0.10 + by, 0.005)) for by in (0.001, 0.03))
    assert alike.share == apart.share == pytest.approx(0.10)
    assert alike.error == pytest.approx(0.005 / 2**0.5) and apart.error == pytest.approx(np.std([0.07, 0.13]))
