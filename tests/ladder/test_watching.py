"""The watch over a running training: what it tells, that it leaves the training as it was, and MLX as it found it."""

from __future__ import annotations

import json
import math
import threading
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten

from mlxstories.cli import main
from mlxstories.ladder import watch
from mlxstories.ladder.watching import session as sessions
from mlxstories.ladder.watching.figures import block, squares
from mlxstories.ladder.watching.judge import Judge
from tests.ladder.scripts import LOOP, MODEL, line_of
from tests.ladder.tiny import Tiny, batches


@pytest.fixture(autouse=True)
def every_update(monkeypatch):
    """Looks at every update, however long it takes."""
    monkeypatch.setattr(sessions, "SHARE", math.inf)


def mean(model, x, y, scale=1.0):
    return scale * nn.losses.cross_entropy(model(x), y, reduction="mean")


def train(*, rate=1e-2, updates=30, scale=lambda i: 1.0, rows=None, compiled=False, **options):
    """A loop as one writes it, under watch."""
    mx.random.seed(0)
    model, optimizer, told = Tiny(), optim.SGD(rate), []
    rows = rows or [b for seed in range(updates // 8 + 1) for b in batches(seed)]
    options = {"path": None, "tell": told.append, **options}
    with watch(model, optimizer, **options) as session:
        gradient = nn.value_and_grad(model, mean)

        def step(x, y, s):
            loss, gradients = gradient(model, x, y, s)
            optimizer.update(model, gradients)
            return loss

        if compiled:
            state = [model.state, optimizer.state]
            step = partial(mx.compile, inputs=state, outputs=state)(step)
        for i in range(updates):
            loss = step(rows[i].inputs, rows[i].targets, mx.array(scale(i)))
            mx.eval(loss, model.parameters(), optimizer.state)
    assert told == session.findings
    return session, model


@pytest.mark.parametrize("compiled", [False, True])
def test_a_sound_training_shows_nothing_and_is_not_changed(compiled, monkeypatch):
    session, model = train(compiled=compiled)
    assert session.findings == [] and session.updates == session.looks == 30
    monkeypatch.setattr(sessions, "SHARE", -1.0)  # never looks
    unwatched, other = train(compiled=compiled)
    assert unwatched.looks == 0 and unwatched.updates == 30
    for (name, a), (_, b) in zip(tree_flatten(model), tree_flatten(other), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=name)


def test_mlx_is_as_it_was_afterwards_also_after_an_exception():
    before = nn.value_and_grad, mx.value_and_grad, mx.eval, mx.compile, optim.Optimizer.apply_gradients
    with pytest.raises(KeyError), watch(path=None):
        assert mx.eval is not before[2]
        raise KeyError
    assert (
        nn.value_and_grad,
        mx.value_and_grad,
        mx.eval,
        mx.compile,
        optim.Optimizer.apply_gradients,
    ) == before


def test_another_thread_that_evaluates_is_left_alone():
    raised: list[Exception] = []

    def load():
        try:
            mx.eval(mx.ones(3) + 1)
        except RuntimeError as error:
            raised.append(error)

    model, optimizer, batch = Tiny(), optim.SGD(1e-2), next(iter(batches(0)))
    with watch(model, optimizer, path=None) as session:
        gradient = nn.value_and_grad(model, mean)
        for _ in range(3):
            _, gradients = gradient(model, batch.inputs, batch.targets)
            optimizer.update(model, gradients)
            loader = threading.Thread(target=load)
            loader.start()
            loader.join()
            mx.eval(model.parameters(), optimizer.state)
    assert not raised and session.looks == session.updates == 3


def test_losses_that_nobody_evaluates_hold_no_logits(monkeypatch):
    monkeypatch.setattr(sessions, "SHARE", -1.0)  # never looks
    model = nn.Sequential(nn.Embedding(1000, 8), nn.Linear(8, 1000))
    optimizer, ids, held = optim.SGD(1e-3), mx.arange(1000).reshape(4, 250), []
    with watch(model, optimizer, path=None):
        gradient = nn.value_and_grad(model, mean)
        for _ in range(8):
            _, gradients = gradient(model, ids, ids)
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)
            del gradients
            mx.synchronize()
            held.append(mx.get_active_memory())
    logits = 4 * 1000 * ids.size
    assert held[-1] - held[2] < 2 * logits


@pytest.mark.parametrize("given", [True, False])
def test_an_optimizer_of_several_is_one(given):
    model, batch = Tiny(), next(iter(batches(0)))
    optimizer = optim.MultiOptimizer([optim.SGD(0.5), optim.AdamW(1e-3)], [lambda path, _: "head" in path])
    with watch(model, optimizer if given else None, path=None) as session:
        gradient = nn.value_and_grad(model, mean)
        for _ in range(3):
            _, gradients = gradient(model, batch.inputs, batch.targets)
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state)
    last = session.judge.before
    assert (
        session.updates == session.looks == 3
        and last.rate == 0.5
        and set(last.norms) == {"embed", "mix", "head"}
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loss_that_is_not_finite_is_told_with_its_update(compiled):
    session, _ = train(scale=lambda i: math.nan if i == 12 else 1.0, updates=15, compiled=compiled)
    first = session.findings[0]
    assert first.code == "not-finite" and first.evidence["step"] == 13


def test_a_spike_is_told_with_its_block_and_batch():
    rows = [b for seed in range(4) for b in batches(seed)]
    session, _ = train(scale=lambda i: 500.0 if i == 20 else 1.0, updates=21, rows=rows)
    spike = next(f for f in session.findings if "gradient of" in f.message)
    assert (spike.code, spike.severity, spike.evidence["step"]) == ("exploding-gradient", "warning", 21)
    assert spike.where["module"] == "embed" and spike.where["file"] == __file__
    assert spike.evidence["batch"] == np.array(rows[20].inputs).reshape(-1)[:16].tolist()


def test_updates_that_stop_and_a_rate_that_turns_negative():
    stopping = train(rate=lambda step: mx.where(step < 10, 1e-2, 0.0))[0]
    (finding,) = stopping.findings
    assert finding.code == "no-update" and 11 <= finding.evidence["step"] <= 18
    turning = train(rate=lambda step: 1e-2 - 1e-3 * step.astype(mx.float32), updates=16)[0]
    assert "loss-sign" in [f.code for f in turning.findings]
    assert train(rate=0.0, compiled=True)[0].findings[0].code == "no-update"


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_that_repeat_are_told(compiled):
    rows = [next(iter(batches(0)))] * 30
    assert [f.code for f in train(rows=rows, compiled=compiled)[0].findings] == ["constant-batches"]
    pairs = [b for b in batches(0) for _ in range(2)] * 2  # each twice: no mistake by itself
    assert train(rows=pairs)[0].findings == []


def test_a_validation_loss_is_held_against_the_floor():
    told = []
    with watch(path=None, tell=told.append, floor=1.2) as session:
        session.validation(1.25)
        session.validation(mx.array(1.19))  # within the limit's 0.02
        assert not told
        session.validation(1.1)
    assert [(f.code, f.severity) for f in told] == [("too-good-to-be-true", "error")]
    assert told[0].evidence["floor"] == 1.2
    with watch(path=None, tell=told.append) as session:  # nothing is known of the text
        session.validation(0.01)
    assert len(told) == 1 and told == [*told[:1], *session.findings]


def test_ranks_whose_weights_differ(monkeypatch):
    class Two:
        size, rank = (lambda self: 2), (lambda self: 0)

    monkeypatch.setattr(sessions, "_RANKS_EVERY", 4)
    monkeypatch.setattr(mx.distributed, "init", Two)
    for other, codes in ((1.0, []), (1.01, ["gradient-mismatch"])):
        monkeypatch.setattr(
            mx.distributed, "all_gather", lambda x, group, k=other: mx.concatenate([x, k * x], axis=0)
        )
        assert [f.code for f in train(updates=8)[0].findings] == codes


def test_findings_go_to_a_file_and_to_trackers(tmp_path):
    class Tracker(list):
        def write(self, step, values):
            self.append((step, values))

    tracker, path = Tracker(), tmp_path / "new" / "findings.json"
    train(rate=0.0, updates=8, path=path, trackers=[tracker])
    (written,) = json.loads(path.read_text())
    assert written["code"] == "no-update" and written["where"]["file"] == __file__
    assert tracker == [(written["evidence"]["step"], {"findings/no-update": 1.0})]
    train(path=tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_norms_are_those_of_the_blocks():
    gradients = {
        "layers": [{"w": mx.array([3.0])}, {"w": mx.array([1.0]), "b": mx.array([2.0])}],
        "e": mx.ones(4),
    }
    sums = {name: float(total) for name, total in squares(gradients).items()}
    assert sums == {"layers.0": 9.0, "layers.1": 5.0, "e": 4.0}
    assert (
        block("model.layers.3.attention.query.weight") == "model.layers.3" and block("head.weight") == "head"
    )


def test_each_kind_is_told_once():
    judge = Judge()
    assert [f.code for f in judge.losses_between([(1, math.nan), (2, math.inf)])] == ["not-finite"]
    assert judge.losses_between([(3, math.nan)]) == []


def test_debug_follows_a_script_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        MODEL
        + LOOP.replace("range(500)", "range(12)").replace("1e-2", "0.0")
        + "\nmodel.save_weights('w.npz')\n"
    )
    (tmp_path / "train.py").write_text(text + "assert __name__ == '__main__' and sys.argv[1:] == ['--now']\n")
    result = CliRunner().invoke(main, ["debug", "--follow", "train.py", "--", "--now"])
    assert result.exit_code == 1, result.output
    assert "12 updates" in result.output and (tmp_path / "w.npz").exists()
    (written,) = json.loads((tmp_path / "findings.json").read_text())
    assert written["code"] == "no-update"
    assert written["where"]["line"] == line_of(text, "optimizer.update(model, grads)")
    (tmp_path / "own.py").write_text("updates = 12\n")
    (tmp_path / "train.py").write_text(
        "from own import updates\n" + text.replace("range(12)", "range(updates)")
    )
    smaller = ["--set", "updates=5", "--set", "nowhere=1"]
    result = CliRunner().invoke(main, ["debug", "--follow", "train.py", *smaller])
    assert "5 updates" in result.output and "assigns no nowhere, so --set cannot" in result.output
    for ending, code in (("raise SystemExit(3)", 3), ("1 / 0", 2)):
        (tmp_path / "train.py").write_text(ending + "\n")
        assert CliRunner().invoke(main, ["debug", "--follow", "train.py"]).exit_code == code
