"""What is asked for at the wrong time, twice or of nothing: one clear line, or no matter at all."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import click
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
import tiny

from mlxstories.errors import StoriesError
from mlxstories.ladder import watch
from mlxstories.ladder.bench.arrays import masked_mean
from mlxstories.ladder.capture import CapturedScript
from mlxstories.ladder.capture.rates import warming

SCRIPT = """
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

model, optimizer = nn.Sequential(nn.Embedding(13, 8), nn.Linear(8, 13)), optim.AdamW(1e-2)
step = nn.value_and_grad(model, lambda m, x, y: nn.losses.cross_entropy(m(x), y, reduction="mean"))
for _ in range(20):
    rows = mx.random.randint(0, 13, (4, 9))
    loss, gradients = step(model, rows[:, :-1], rows[:, 1:])
    optimizer.update(model, gradients)
"""


def test_a_script_may_be_closed_twice(tmp_path):
    (path := tmp_path / "train.py").write_text(SCRIPT)
    with CapturedScript(str(path)) as script:
        script.close()


def test_a_single_negative_rate_warms_nothing_up():
    script = SimpleNamespace(rates=[-1e-3], loop=SimpleNamespace(first_optimizer=optim.SGD(0.1)))
    assert not warming(script)


def _diverge(path, begun=lambda: None):
    model, optimizer = tiny.Tiny(), optim.SGD(0.1)
    gradient = nn.value_and_grad(model, masked_mean)
    with watch(model, optimizer, path=path) as session:
        begun()
        for batch in tiny.batches(0):
            loss, gradients = gradient(model, batch)
            optimizer.update(model, {**gradients, "head": {"bias": mx.full(tiny.V, mx.nan)}})
            mx.eval(loss, model.parameters())
    return session


@pytest.mark.parametrize("inside", [False, True], ids=["a folder", "in a file"])
def test_findings_that_cannot_be_written_are_told_before_the_training(tmp_path, inside):
    (file := tmp_path / "file").touch()
    with pytest.raises(StoriesError, match="cannot write to"):
        _diverge(file / "findings.json" if inside else tmp_path, begun=pytest.fail)
    assert os.listdir(tmp_path) == ["file"]


def test_findings_that_can_no_longer_be_written_end_no_training(tmp_path, capsys):
    folder = tmp_path / "run"
    session = _diverge(folder / "findings.json", begun=folder.touch)
    assert session.findings and capsys.readouterr().err.count("findings are not kept: cannot write to") == 1


def test_the_harm_of_nothing_is_not_waited_for():
    path = Path(__file__).parents[2] / "benchmarks" / "harm.py"
    spec = importlib.util.spec_from_file_location("harm", path)
    spec.loader.exec_module(harm := importlib.util.module_from_spec(spec))
    subject = tiny.subject(train_batches=lambda seed: iter(()), optimizer=lambda: optim.SGD(0.1))
    with pytest.raises(click.ClickException, match="yields no batch"):
        harm.trained(subject, 1, 0)
