"""The setup that is written from a captured script: the same model, batches, loss and optimiser, and marked gaps."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.ladder import load_subject
from mlxstories.ladder.capture import definitions, write_subject
from mlxstories.ladder.capture.expressions import Expressions, Gap
from tests.ladder.scripts import LOOP, MODEL, STYLES, flat


@pytest.mark.parametrize("style", STYLES)
def test_what_is_written_is_what_was_captured(captured, style, tmp_path):
    script = captured(MODEL + STYLES[style])
    path = tmp_path / "setups" / "mine.py"
    gaps = write_subject(script, path, [], module=False)
    by_hand = style == "gradients alone, updates by hand"
    assert [gap.partition(":")[0] for gap in gaps] == (["optimizer"] if by_hand else [])
    written = load_subject(str(path))
    assert written.vocab_size == 12
    model, own = written.model(), script.subject.model()
    for name, value in flat(own).items():
        np.testing.assert_array_equal(flat(model)[name], value)
    batches = {batch["inputs"].tolist().__repr__(): batch for batch in written.train_batches(0)}
    assert len(batches) == len(script.batches)
    masked = any((mask == 0).any() for _, _, mask in script.batches)
    assert all(("mask" in batch) == masked for batch in batches.values())
    for batch in script.batches[:3]:
        again = batches[batch[0].tolist().__repr__()]
        assert (np.array(again["targets"]) == batch[1]).all()
        expected = float(script.subject.loss(own, batch))
        assert float(written.loss(model, again)) == pytest.approx(expected, rel=1e-6)
    if not by_hand:
        mine, theirs = written.optimizer(), script.subject.optimizer()
        assert type(mine) is type(theirs)
        assert float(mine.learning_rate) == pytest.approx(float(theirs.learning_rate), rel=1e-5)


def test_a_loss_may_name_types_that_the_setup_does_not(captured, tmp_path):
    inside = """
def train():
    def loss(m: Model, x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.cross_entropy(m(x), y, reduction="mean")

    optimizer, step = optim.SGD(0.1), nn.value_and_grad(model, loss)
    for i in range(100):
        data = rows()
        optimizer.update(model, step(model, data[:, :-1], data[:, 1:])[1])

train()
"""
    script, path = captured(MODEL + inside), tmp_path / "mine.py"
    assert not write_subject(script, path, [], module=False) and "m: Model" in path.read_text()
    written = load_subject(str(path))
    value = float(written.loss(written.model(), next(iter(written.train_batches(0)))))
    assert value == pytest.approx(script.losses[0], rel=1e-5)


def test_a_loss_that_cannot_be_written_is_a_gap_that_the_ladder_can_climb_over(captured, tmp_path):
    text = MODEL + LOOP.replace(
        "step = nn.value_and_grad(model, loss_fn)",
        "class Trainer:\n    def loss(self, x, y):\n        return loss_fn(model, x, y)\n"
        "step = nn.value_and_grad(model, Trainer().loss)",
    ).replace("step(model, ", "step(")
    script, path = captured(text), tmp_path / "mine.py"
    gaps = write_subject(script, path, [], module=False)
    assert len(gaps) == 1 and gaps[0].startswith("loss: ")
    assert "# TODO: def loss(model, batch)" in path.read_text()
    written = load_subject(str(path))
    assert written.loss is None and written.optimizer().bias_correction


def test_debug_writes_a_setup_and_examines_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(MODEL + LOOP)
    result = CliRunner().invoke(main, ["debug", "train.py", "--write-subject", "mine.py", "--steps", "3"])
    assert result.exit_code == 0 and "mine.safetensors" in result.output, result.output
    result = CliRunner().invoke(main, ["debug", "mine.py", "--rung", "init"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["debug", "mine.py", "--write-subject", "other.py"])
    assert (
        result.exit_code == 2
        and "--write-subject is for training scripts, and mine.py is not one" in result.output
    )


@pytest.mark.parametrize("change", ["model.out = LoRALinear.from_base(model.out)", "model.embed.freeze()"])
def test_layers_that_are_changed_after_the_model_is_made_are_marked(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    lora = "class LoRALinear(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    lora += "        self.a = mx.zeros((16, 2))\n\n    @staticmethod\n    def from_base(base):\n"
    lora += "        new = LoRALinear()\n        new.base = base\n        return new\n\n"
    lora += (
        "    def __call__(self, x):\n        return self.base(x) + (x @ self.a).sum(-1, keepdims=True)\n\n\n"
    )
    (tmp_path / "train.py").write_text(MODEL + lora + change + LOOP)
    result = CliRunner().invoke(main, ["debug", "train.py", "--write-subject", "mine.py", "--steps", "3"])
    assert result.exit_code == 0 and "after Model is made" in result.output, result.output
    with pytest.raises(NotImplementedError, match=r"TODO: change (out|embed)"):
        load_subject("mine.py").model()


def test_a_script_that_cannot_be_captured_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('nothing')\n")
    result = CliRunner().invoke(main, ["debug", "train.py"])
    assert result.exit_code == 2 and "--write-subject" in result.output
    result = CliRunner().invoke(main, ["debug", "train.py", "--write-subject", "mine.py"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "mine.py").read_text()
    assert text.count("TODO: return") == 4
    with pytest.raises(NotImplementedError, match="TODO"):
        load_subject("mine.py").model()


def test_definitions_stop_before_training_and_leave_a_guard_alone(tmp_path, capsys):
    file = tmp_path / "script.py"
    file.write_text(
        "import sys\nsize = int(sys.argv[1])\n" + MODEL + LOOP + "\nraise SystemError('trained')\n"
    )
    found = definitions(file, ["7"])
    assert found.size == 7 and found.T == 8 and isinstance(found.model, nn.Module)
    ids = mx.ones((4, 8), mx.int32)
    loss, _ = found.step(found.model, ids, ids)  # which was made under watch
    assert loss.item() == pytest.approx(found.loss_fn(found.model, ids, ids).item())
    file.write_text("x = 1\nif __name__ == '__main__':\n    raise SystemError('ran')\nprint('noise')\n")
    assert definitions(file).x == 1 and capsys.readouterr().out == ""
    file.write_text("1 / 0\n")
    with pytest.raises(StoriesError, match="ZeroDivisionError"):
        definitions(file)


@dataclasses.dataclass
class Config:
    size: int = 3
    rates: tuple = (0.5, float("inf"))


def test_expressions_make_their_values_again():
    names = {"Config": Config}
    written = Expressions(names, "here", {})
    scope = {"here": argparse.Namespace(**names), "mx": mx, "nn": nn, "optim": optim, "partial": partial}
    scope["SimpleNamespace"] = argparse.Namespace
    for value in (None, [1, -2.5, "a'b", (True,), ()], {"k": {1: b"x"}}, Config(4), argparse.Namespace(a=1)):
        assert eval(written.of(value), scope) == value
    assert eval(written.of(mx.bfloat16), scope) == mx.bfloat16
    schedule = optim.join_schedules([optim.linear_schedule(0, 1e-2, 4), optim.cosine_decay(1e-2, 9)], [4])
    again = eval(written.of(schedule), scope)
    for step in (0, 3, 4, 8):
        assert float(again(mx.array(step))) == pytest.approx(float(schedule(mx.array(step))))
    assert eval(written.of(partial(mx.add, 2)), scope)(3).item() == 5
    assert eval(written.of(lambda p, w: w > 2), scope)(0, 3)
    names["own"] = other = lambda step: step
    assert written.of(other) == "here.own"
    for strange in (
        object(),
        "x" * 2000,
        lambda p: scope,
        nn.Linear(2, 2),
        Config(object()),
        list(range(100)),
    ):
        with pytest.raises(Gap):
            written.of(strange)
