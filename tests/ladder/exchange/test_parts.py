"""What an exchange counts as noise, what it puts into a model and a setup from outside, and its line for each part."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from tiny import T, Tiny, V, batches, subject

from mlxstories.batch import Batch
from mlxstories.findings import Finding
from mlxstories.findings.causes import PARTS
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.arrays import central_difference
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.ladder.exchange import deepened, halving, judging
from mlxstories.ladder.exchange.exchange import ALL, AS_IS, LOSS, Exchange, gap
from mlxstories.ladder.exchange.halving import Proof, best_in_model
from mlxstories.ladder.exchange.inside_branches import for_branches
from mlxstories.ladder.exchange.intervention import Intervention
from mlxstories.ladder.exchange.material import Measured
from mlxstories.ladder.exchange.reference import PlainDecoder, Shape
from mlxstories.ladder.exchange.training import Clock, Training
from mlxstories.ladder.exchange.unseen import rows_of_all_texts


def trained(loss: float, *, redrawn: bool = False) -> Training:
    """A finished training of this loss, whose rows all have the same."""
    run = Training(None, "", None, Clock(), redrawn=redrawn, curve=[(160, loss)])
    run.measured = Measured(np.full(10, 4 * loss), np.full(10, 4.0))
    return run


# --- noise -------------------------------------------------------------------------------------------


def test_other_first_weights_are_noise_wherever_they_are_compared():
    own, plain = trained(2.02), trained(2.0, redrawn=True)
    assert gap(own, trained(2.0)).low == pytest.approx(0.01)
    exchange = Exchange(None, runs={AS_IS: own, LOSS: own, ALL: plain})
    judged = exchange.gap_of("model")
    assert judged == gap(*exchange.of_part("model"))
    assert judged.share == pytest.approx(0.01) and judged.low < 0 < judged.high


def test_a_gap_close_to_a_margin_is_of_two_seeds():
    before, after = trained(2.06), trained(2.0, redrawn=True)
    before._again, after._again = trained(2.02), trained(2.0, redrawn=True)
    one, two = gap(before, after), gap(before, after, margin=0.035)
    assert (one.share, two.share) == (pytest.approx(0.03), pytest.approx(0.02))
    assert two.error == pytest.approx(0.01) and one.error < 0.01  # seeds differ more than rows tell
    assert gap(before, after, margin=0.3) == one


def test_another_seed_has_other_first_weights_and_the_same_batches():
    bench = Bench(subject())
    seen: list[bytes] = []

    def make(seed):
        def step(model, optimizer, batch):
            seen.append(batch.inputs.tobytes())

        return bench.model(seed), bench.optimizer(), step

    run = Training(bench, "", make, Clock()).advance(1 / 8)
    run.again()
    assert run.again() is run.again() and run.seeds == 2
    assert run.curve[0][1] != run.again().curve[0][1]
    first = len(seen) - len(seen[: run.updates])
    assert seen[: run.updates] == seen[run.updates : 2 * run.updates] and first


def test_a_central_difference_is_exact_for_a_parabola():
    assert central_difference(lambda by: (2 + by) ** 2, 0.5) == pytest.approx(4)


# --- residual connections ----------------------------------------------------------------------------


class Branch(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def __call__(self, x):
        return self.down(nn.gelu(self.up(x)))


class Block(nn.Module):
    """Two branches; the first is added to what came in where it is ``residual``."""

    def __init__(self, size: int, residual: bool):
        super().__init__()
        self.first, self.second, self.norm = Branch(size), Branch(size), nn.RMSNorm(size)
        self.residual = residual

    def __call__(self, x):
        x = self.first(self.norm(x)) + (x if self.residual else 0)
        return x + self.second(x)


class Stack(nn.Module):
    def __init__(self, residual: bool = True):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, 16), nn.Linear(16, V)
        self.blocks = [Block(16, residual) for _ in range(2)]

    def __call__(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_a_residual_put_in_from_outside_is_that_of_a_model_that_has_it():
    found = for_branches(Bench(subject(model=lambda: Stack(residual=False))))
    assert [c.name.split()[-2] for c in found] == ["first", "second"]
    without, whole = Stack(residual=False), Stack()
    whole.update(without.parameters())
    tokens = mx.array(np.arange(2 * T).reshape(2, T) % V)
    assert not mx.allclose(without(tokens), whole(tokens), atol=1e-3)
    found[0].model(without)
    assert mx.allclose(without(tokens), whole(tokens), atol=1e-5)
    assert found[0].site["module"] == "blocks.0.first" and found[0].site["file"] == __file__


def test_queries_keys_and_values_are_no_branches():
    class Three(Block):
        def __init__(self):
            super().__init__(16, True)
            self.query, self.key, self.out = (nn.Linear(16, 16) for _ in range(3))

        def __call__(self, x):
            given = self.norm(x)
            return x + self.out(self.query(given) * mx.sigmoid(self.key(given)))

    def model():
        stack = Stack()
        stack.blocks = [Three()]
        return stack

    assert [c.name.split()[-2] for c in for_branches(Bench(subject(model=model)))] == ["out"]


def test_what_changes_nothing_is_given_up_at_once():
    exchange = Exchange(Bench(subject(optimizer=lambda: optim.AdamW(1e-2, bias_correction=True))))
    exchange.go()
    told: list[str] = []
    exchange.tell = told.append
    proofs = best_in_model(exchange)
    assert told.count("with mx.stop_gradient without effect") == 1  # Tiny has none
    assert all(proof.run.loss < exchange.runs[LOSS].loss for proof in proofs)


@pytest.mark.parametrize(
    ("kind", "severity"), [({"redrawn": True}, "warning"), ({"wanted": True}, "warning"), ({}, "error")]
)
def test_what_may_be_meant_and_costs_little_is_a_warning_and_a_small_change_an_error(
    monkeypatch, kind, severity
):
    redrawn = "redrawn" in kind
    own, helped = trained(2.2), trained(2.08, redrawn=redrawn)
    own._again, helped._again = trained(2.2), trained(2.08, redrawn=redrawn)
    proof = Proof(Intervention("something", "model", **kind), helped, own)
    monkeypatch.setattr(judging, "best_in_model", lambda _: [proof])
    runs = {AS_IS: own, LOSS: own, ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject()), runs=runs)
    with exchange.bench.protected():
        (draft,) = judging.judge(exchange)
    assert (draft.severity, draft.evidence["changed"]) == (severity, "something")


def test_no_change_proves_anything_where_the_plain_step_breaks_the_model_down(monkeypatch):
    own, helped = trained(2.2), trained(2.0)
    proof = Proof(Intervention("something", "model"), helped, own)
    monkeypatch.setattr(judging, "best_in_model", lambda _: [proof])
    runs = {AS_IS: own, LOSS: trained(np.nan), ALL: trained(2.0, redrawn=True)}
    exchange = Exchange(Bench(subject()), runs=runs)
    with exchange.bench.protected():
        (draft,) = judging.judge(exchange)
    assert draft.severity == "warning" and "changed" not in draft.evidence


@pytest.mark.parametrize(("by_plain_step", "told"), [(1.95, []), (1.2, ["ahead-of-reference"])])
def test_a_better_step_of_its_own_is_no_model_that_is_ahead(by_plain_step, told):
    own, plain = trained(1.2), trained(2.0, redrawn=True)
    own.curve = [(0, float(np.log(V))), *own.curve]
    exchange = Exchange(Bench(subject()), runs={AS_IS: own, LOSS: trained(by_plain_step), ALL: plain})
    with exchange.bench.protected():
        assert [draft.code for draft in judging.judge(exchange)] == told


# --- texts that no batch holds -----------------------------------------------------------------------


class Numbers:
    """A tokenizer of texts that are ids already."""

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def texts():
    rng = np.random.default_rng(1)
    return [" ".join(map(str, rng.integers(0, V, T + 1))) for _ in range(64)]


def of_texts(count: int):
    rows = np.array([Numbers().encode(text)[: T + 1] for text in texts()[:count]])

    def epoch(seed):
        for at in range(0, count, 4):
            part = rows[at : at + 4]
            yield Batch(mx.array(part[:, :-1]), mx.array(part[:, 1:]), mx.ones((len(part), T)))

    return epoch


def reading(count: int, val=None):
    return Bench(
        subject(
            train_batches=of_texts(count),
            val_batches=val or (lambda: batches(99, 4)),
            tokenizer=Numbers(),
            train_texts=texts(),
        )
    )


def test_rows_of_all_texts_are_cut_where_most_reach_no_batch():
    found = rows_of_all_texts(reading(8))
    rows = {tuple(row) for batch in found for row in np.asarray(batch.inputs)}
    wanted = {tuple(Numbers().encode(text)[:T]) for text in texts()}
    assert rows == wanted
    assert {batch.shape for batch in found} == {(4, T)}


def test_nothing_held_out_is_among_the_rows_of_all_texts():
    held = of_texts(64)
    found = rows_of_all_texts(reading(8, val=lambda: list(held(0))[8:]))
    rows = {tuple(row) for batch in found for row in np.asarray(batch.inputs)}
    assert not rows & {tuple(Numbers().encode(text)[:T]) for text in texts()[32:]}
    assert tuple(Numbers().encode(texts()[0])[:T]) in rows


def test_texts_that_are_seen_are_not_cut_anew():
    assert rows_of_all_texts(reading(64)) is None


# --- a line for each part ----------------------------------------------------------------------------


def evaluate(model, given):
    model.eval()
    nats = [nn.losses.cross_entropy(model(b.inputs), b.targets).sum().item() for b in given]
    return {"loss": sum(nats) / sum(b.targets.size for b in given)}


def generate(model, prompt, n):
    for _ in range(n):
        prompt = [*prompt, mx.argmax(model(mx.array([prompt]))[0, -1]).item()]
    return prompt[-n:]


def lines(diagnosis):
    return {line.name: line for line in diagnosis.rungs[-1].checks[1:]}


@pytest.mark.long
def test_each_part_has_a_line_and_evaluation_and_decoding_are_held_against_ours():
    fast = lambda: optim.AdamW(1e-2, bias_correction=True)  # noqa: E731
    given = subject(
        val_batches=lambda: list(batches(99, 4)), optimizer=fast, evaluate=evaluate, generate=generate
    )
    found = lines(deepened(diagnose(given, rungs=["data"]), given))
    assert tuple(found) == PARTS
    words = found["evaluation"].detail.replace(",", "").split()
    reported, ours = float(words[3]), float(words[-1])
    assert reported == pytest.approx(ours, abs=1e-3) and ours < 1.2
    right, of = found["generation"].detail.split()[0], found["generation"].detail.split()[2]
    assert right == of and int(of) > 0
    assert "all plain" in found["model"].detail and found["model"].status == "passed"


@pytest.mark.long
def test_a_part_that_is_not_given_is_not_compared():
    given = subject(model=Tiny)
    found = lines(deepened(diagnose(given, rungs=["data"]), given))
    assert found["evaluation"].status == found["generation"].status == "skipped"


@pytest.mark.long
def test_an_error_of_the_climb_fails_its_parts_line():
    given = subject(evaluate=evaluate, val_batches=lambda: list(batches(99, 4)))
    climbed = Diagnosis("tiny", [Finding("metric-mismatch", "error", "trained", "counts padding")], [], 0.0)
    found = deepened(climbed, given)
    assert lines(found)["evaluation"].status == "failed"
    assert found.findings[0].evidence["part"] == "evaluation"


# --- the size of the updates -------------------------------------------------------------------------


@pytest.mark.long
def test_a_rate_that_is_far_too_large_is_an_error_of_the_step():
    given = subject(
        val_batches=lambda: batches(99, 4), optimizer=lambda: optim.AdamW(1.0, bias_correction=True)
    )
    found = deepened(diagnose(given, rungs=["data"]), given).findings
    errors = [f for f in found if f.severity == "error"]
    assert [f.evidence["part"] for f in errors] == ["step"]
    assert errors[0].evidence["changed"] == "updates divided by 10"


def test_changes_leave_a_model_and_an_optimiser_that_are_handed_out_again_as_they_are(monkeypatch):
    model = PlainDecoder(Shape(vocab=V, width=16, depth=2, hidden=32, positions=0, tied=True))
    optimizer = optim.SGD(optim.linear_schedule(1e-2, 0, 99), momentum=0.99)
    exchange = Exchange(Bench(subject(model=lambda: model, optimizer=lambda: optimizer)), rates={LOSS: 1e-3})
    run = SimpleNamespace(loss=1.0, bench=exchange.bench, rate=None)
    exchange.runs = {AS_IS: run, LOSS: run}
    made: list[str] = []

    def made_only(_, changes, make, *__):
        for change in changes:
            make(change, 0)
            made.append(change.name)

    monkeypatch.setattr(halving, "_race", made_only)
    ids, logits, settings = mx.arange(T)[None] % V, model(mx.arange(T)[None] % V), set(vars(optimizer))
    best_in_model(exchange), halving.best_in_step(exchange)
    assert {"momentum at 0.9", "the rate constant at its peak", "a plain block for PlainBlock"} <= set(made)
    assert exchange.bench.model() is model and mx.array_equal(model(ids), logits)
    assert (optimizer.momentum, set(vars(optimizer))) == (0.99, settings) and optimizer._schedulers
