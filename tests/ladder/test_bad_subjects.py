"""Files that are no subjects, and subjects that misbehave: one clear line, the right exit code, no traceback."""

# ruff: noqa: E501 (a subject is clearest on one line)

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.ladder import load_subject

HEADER = """
import time
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlxstories.batch import Batch
from mlxstories.ladder import Subject

V, T = 12, 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, 16)
        self.out = nn.Linear(16, V)

    def __call__(self, tokens):
        x = self.embed(tokens)
        before = mx.pad(x, [(0, 0), (2, 0), (0, 0)])
        return self.out(x + mx.tanh(before[:, 1:-1]) + 0.5 * mx.tanh(before[:, :-2]))


def batches(seed, count=6, low=0, high=V):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = rng.integers(low, high, (4, T + 1))
        yield Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mx.ones((4, T)))


def make(**fields):
    return Subject(**{"model": Model, "vocab_size": V, "train_batches": batches, **fields})
"""

# What is no subject at all: exit code 2, and a word of the reason.
UNUSABLE = {
    "syntax-error": ("def subject(:\n", "SyntaxError"),
    "import-fails": ("import no_such_module_at_all\n", "no_such_module_at_all"),
    "exits-at-import": ("import sys\nsys.exit(3)\n", "SystemExit"),
    "no-function": ("x = 1\n", "subject"),
    "returns-none": ("def subject():\n    return None\n", "NoneType"),
    "returns-a-model": ("import mlx.nn as nn\ndef subject():\n    return nn.Linear(2, 2)\n", "Linear"),
    "factory-raises": ("def subject():\n    raise KeyError('lost')\n", "lost"),
    "bad-vocabulary": (HEADER + "def subject():\n    return make(vocab_size=0)\n", "vocab_size"),
    "unknown-field": (HEADER + "def subject():\n    return make(trainer=1)\n", "trainer"),
    "batches-are-a-list": (
        HEADER + "def subject():\n    return make(train_batches=[1, 2])\n",
        "train_batches",
    ),
    "hangs-at-import": ("import threading\nthreading.Event().wait(60)\n", "not finished after 2 s"),
}

# Subjects that fail when they are used: exit code 1, and this finding.
MISBEHAVING = {
    "model-raises": (
        "subject-error",
        "def model():\n    raise RuntimeError('no weights')\nS = make(model=model)",
    ),
    "forward-raises": (
        "subject-error",
        "class Bad(Model):\n    def __call__(self, tokens):\n        raise RuntimeError('boom')\nS = make(model=Bad)",
    ),
    "model-for-a-factory": ("subject-error", "S = make(model=Model())"),
    "model-is-something-else": ("subject-error", "S = make(model=lambda: 'a model')"),
    "logits-of-wrong-shape": (
        "subject-error",
        "class Bad(Model):\n    def __call__(self, tokens):\n        return super().__call__(tokens)[:, -1]\n"
        "S = make(model=Bad)",
    ),
    "loss-raises": ("subject-error", "def loss(model, batch):\n    return batch.inputz\nS = make(loss=loss)"),
    "loss-not-a-scalar": (
        "subject-error",
        "def loss(model, batch):\n    return nn.losses.cross_entropy(model(batch.inputs), batch.targets)\nS = make(loss=loss)",
    ),
    "step-raises": (
        "subject-error",
        "def step(model, optimizer, batch):\n    raise ValueError('step')\nS = make(train_step=step)",
    ),
    "step-returns-nothing-and-does-nothing": (
        "no-update",
        "def step(model, optimizer, batch):\n    return mx.array(1.0)\nS = make(train_step=step)",
    ),
    "optimizer-is-a-string": ("subject-error", "S = make(optimizer=lambda: 'adam')"),
    "no-batches": ("subject-error", "S = make(train_batches=lambda seed: [])"),
    "empty-batches": (
        "subject-error",
        "empty = mx.zeros((0, T), mx.int32)\nS = make(train_batches=lambda seed: [Batch(empty, empty, mx.zeros((0, T)))])",
    ),
    "ragged-batches": (
        "subject-error",
        "S = make(train_batches=lambda seed: [([[1, 2, 3], [1, 2]], [[2, 3, 4], [2, 3]])])",
    ),
    "unequal-shapes": (
        "subject-error",
        "a, b = mx.zeros((4, T), mx.int32), mx.zeros((4, T - 1), mx.int32)\nS = make(train_batches=lambda seed: [(a, b)])",
    ),
    "float-ids": (
        "subject-error",
        "a = mx.random.uniform(shape=(4, T))\nS = make(train_batches=lambda seed: [(a, a)])",
    ),
    "batches-are-none": ("subject-error", "S = make(train_batches=lambda seed: None)"),
    "mask-of-nan": (
        "subject-error",
        "a = mx.zeros((4, T), mx.int32)\nS = make(train_batches=lambda seed: [Batch(a, a, mx.full((4, T), mx.nan))])",
    ),
    "all-masked": (
        "subject-error",
        "S = make(train_batches=lambda seed: [b._replace(mask=mx.zeros((4, T))) for b in batches(seed)])",
    ),
    "iterator-raises": (
        "subject-error",
        "def broken(seed):\n    yield from batches(seed, 2)\n    raise OSError('disk')\nS = make(train_batches=broken)",
    ),
    "id-too-large": ("token-out-of-range", "S = make(train_batches=lambda seed: batches(seed, high=V + 3))"),
    "id-negative": ("token-out-of-range", "S = make(train_batches=lambda seed: batches(seed, low=-5))"),
    "logits-are-nan": (
        "not-finite",
        "class Bad(Model):\n    def __call__(self, tokens):\n        return super().__call__(tokens) * mx.nan\nS = make(model=Bad)",
    ),
    "loss-is-nan": (
        "not-finite",
        "def loss(model, batch):\n    return model(batch.inputs).sum() * mx.nan\nS = make(loss=loss)",
    ),
    "array-kept-at-a-call": (
        "subject-error",
        "class Bad(Model):\n    def __call__(self, tokens):\n        self.last = super().__call__(tokens)\n        return self.last\nS = make(model=Bad)",
    ),
    "hangs": (
        "subject-error",
        "def slow(seed):\n    time.sleep(60)\n    yield\nS = make(train_batches=slow)",
    ),
}


PARTS = {
    "model-raises": "model",
    "forward-raises": "model",
    "model-for-a-factory": "model",
    "model-is-something-else": "model",
    "array-kept-at-a-call": "model",
    "logits-of-wrong-shape": "model",
    "loss-raises": "loss",
    "loss-not-a-scalar": "loss",
    "step-raises": "step",
    "optimizer-is-a-string": "step",
    "iterator-raises": "data",
}  # in which the subject's own exception lies


def debug(tmp_path, text: str, *options: str):
    path = tmp_path / "my_setup.py"
    path.write_text(text)
    result = CliRunner().invoke(main, ["debug", str(path), *options])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_subject_ends_with_exit_code_2(tmp_path, name):
    text, reason = UNUSABLE[name]
    result = debug(tmp_path, text, "--timeout", "2", "--json", str(tmp_path / "report.json"))
    assert result.exit_code == 2
    assert reason in result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [f["code"] for f in report["findings"]] == ["subject-error"]
    assert reason in report["findings"][0]["message"]


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_subject_that_misbehaves_is_a_finding(tmp_path, name):
    code, body = MISBEHAVING[name]
    text = f"{HEADER}\n{body}\n\ndef subject():\n    return S\n"
    timeout = "3" if name == "hangs" else "60"
    rungs = ("data", "init", "minimal")
    options = [option for rung in rungs for option in ("--rung", rung)]
    result = debug(tmp_path, text, "--timeout", timeout, "--json", str(tmp_path / "report.json"), *options)
    report = json.loads((tmp_path / "report.json").read_text())
    first = next((f for f in report["findings"] if f["severity"] == "error"), None)
    assert first is not None and first["code"] == code, report["findings"]
    assert result.exit_code == 1
    assert not report["healthy"]
    assert first["evidence"].get("part") == PARTS.get(name, first["evidence"].get("part"))


def test_an_array_that_a_call_keeps_is_named(tmp_path):
    kept = "class Kept(Model):\n    def __call__(self, tokens):\n        self.NAME = super().__call__(tokens)\n        return self.NAME\n"
    for name, code in (("last", 1), ("_last", 0)):
        body = f"{kept.replace('NAME', name)}S = make(model=Kept)\n\ndef subject():\n    return S\n"
        result = debug(tmp_path, f"{HEADER}\n{body}", "--timeout", "60", "--rung", "init")
        assert result.exit_code == code, result.output
        assert (f"puts {name} among its parameters" in " ".join(result.output.split())) == bool(code)


def test_an_endless_epoch_is_read_in_part(tmp_path):
    body = "def endless(seed):\n    while True:\n        yield from batches(seed)\n        seed += 1\nS = make(train_batches=endless)"
    text = f"{HEADER}\n{body}\n\ndef subject():\n    return S\n"
    result = debug(tmp_path, text, "--timeout", "60", "--rung", "data")
    assert result.exit_code == 0, result.output


def test_a_user_error_names_the_users_line(tmp_path):
    body = "def loss(model, batch):\n    return batch.inputz\n\ndef subject():\n    return make(loss=loss)\n"
    text = f"{HEADER}\n{body}"
    line = text.splitlines().index("    return batch.inputz") + 1
    result = debug(tmp_path, text, "--timeout", "60")
    assert f"my_setup.py:{line}" in result.output


@pytest.mark.parametrize("kind", ["SimpleNamespace", "dict"])
def test_an_object_that_holds_the_logits_is_as_good_as_these(tmp_path, kind):
    body = (
        "from types import SimpleNamespace\nclass Wrapped(Model):\n    def __call__(self, tokens):\n"
        f"        return {kind}(logits=super().__call__(tokens), cache=None)\n\n"
        "def subject():\n    return make(model=Wrapped)\n"
    )
    result = debug(tmp_path, f"{HEADER}\n{body}", "--timeout", "60", "--rung", "minimal")
    assert result.exit_code == 0, result.output


def test_functions_of_a_subject_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "size_of_mine.py").write_text("VOCABULARY = 12\n")
    (tmp_path / "rows_of_mine.py").write_text("ROWS = 3\n")
    (tmp_path / "late.py").write_text(
        "from mlxstories.ladder import Subject\n\n\n"
        "def batches(seed):\n    from rows_of_mine import ROWS\n\n    return [ROWS]\n\n\n"
        "def subject():\n    from size_of_mine import VOCABULARY\n\n"
        "    return Subject(model=lambda: None, vocab_size=VOCABULARY, train_batches=batches)\n"
    )
    subject = load_subject(str(tmp_path / "late.py"))
    assert subject.vocab_size == 12 and subject.train_batches(0) == [3]
