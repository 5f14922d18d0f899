"""The module in which a planted fault begins, the line that makes it, and the line of a part of the subject."""

from __future__ import annotations

import functools
import linecache

import mlx.nn as nn
import numpy as np
import pytest
from tiny import Tiny, batches, subject

from mlxstories.faults.recipe import built_in
from mlxstories.findings import ERROR, NOTE, Finding
from mlxstories.ladder import diagnose
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.where import located
from mlxstories.ladder.where.places import defined

# Fault, the code and `where` of its check, the module it was planted in (None: the whole model), its line.
PLANTED = (
    ("no-causal-mask", "future-leak", "model", "blocks.0.attention", ""),
    ("mask-multiplied", "future-leak", "model", "blocks.0.attention", "self.weights(scores"),
    ("norm-over-time", "future-leak", "model", "blocks.0.mixing", "axis=(1, 2)"),
    ("centred-convolution", "future-leak", "model", "blocks.0.mixing.convolution", "self.convolution(x)"),
    ("leak-in-last-block", "future-leak", "model", "blocks.1.mixing.convolution", "self.convolution(x)"),
    ("leak-behind-zero-gate", "future-leak", "model", "blocks.0.mixing.convolution", "self.gate"),
    ("batch-mean", "batch-leak", "model", "blocks.1.mixing", "x.mean(axis=0"),
    ("attention-over-batch", "batch-leak", "model", "blocks.1.attention", ""),
    ("positions-of-rows", "batch-leak", "model", None, "mx.arange(tokens.shape[0])"),
    ("positions-from-the-end", "length-dependent", "model", None, "tokens.shape[1] - 1, -1, -1"),
    ("dropout-in-every-mode", "not-repeatable", "model", "blocks.0.mixing", "mx.random.bernoulli"),
    ("distance-rewarded", "context-cut", "model", "blocks.0.attention", ""),
    ("one-layer-without-positions", "position-blind", "model", "blocks.0.attention", ""),
    ("tokens-zeroed", "input-blind", "model", None, "mx.zeros_like(tokens)"),
    ("stream-overwritten", "input-blind", "model", None, "mx.broadcast_to(self.start"),
    ("softmax-in-model", "double-softmax", "model", None, "mx.softmax(super().head"),
    ("mask-without-diagonal", "not-finite", "model", "blocks.0.attention", "strictly"),
    ("float16-overflow", "not-finite", "model", None, "* 300"),
    ("relu-far-below-zero", "dead-parameters", "blocks.0.feed_forward_norm.weight", "blocks.0.feed_forward", ""),
    ("gradient-stopped", "dead-parameters", "blocks.0.attention.query.weight", "blocks.0", "stop_gradient"),
    ("block-never-called", "dead-parameters", "blocks.1.attention_norm.weight", "blocks.1.attention_norm", "blocks[0]"),
    ("blocks-frozen", "frozen-parameters", "blocks.0.attention.query.weight", "blocks.0.attention.query", "query ="),
    ("mask-as-parameter", "buffer-trained", "blocks.0.attention.mask", "blocks.0.attention", "self.mask ="),
    ("weights-of-unit-variance", "bad-initialization", "model", "blocks.0.feed_forward.down", "self.down ="),
)  # fmt: skip


@pytest.mark.parametrize("fault, code, where, module, text", PLANTED, ids=[row[0] for row in PLANTED])
def test_a_planted_fault_is_followed_to_its_module_and_line(fault, code, where, module, text):
    bench = Bench(built_in(fault=fault))
    found = located(bench, Finding(code, ERROR, "init", "", where=where)).where
    assert found.get("module") == module
    near = "".join(linecache.getline(found["file"], found["line"] + offset) for offset in (-1, 0, 1))
    assert text in near


def test_the_climb_gives_places_and_leaves_the_model_as_it_was():
    kept = nn.Linear.__call__
    found = diagnose(subject(model=lambda: Tiny(future=1.0)), rungs=["init"]).findings[0]
    assert found.code == "future-leak"
    line = linecache.getline(found.where["file"], found.where["line"])
    assert "weights @ x" in line
    assert nn.Linear.__call__ is kept


def test_parts_of_a_subject_lead_to_the_line_of_their_function():
    def loss(model, batch):
        return nn.losses.cross_entropy(model(batch.inputs), batch.targets, reduction="mean")

    first = loss.__code__.co_firstlineno
    for given in (loss, functools.partial(loss)):
        bench = Bench(subject(loss=given))
        where = located(bench, Finding("double-softmax", ERROR, "init", "", where="loss")).where
        assert where["file"] == __file__ and where["line"] == first and where["module"] == "loss"
    bench = Bench(subject())
    where = located(bench, Finding("constant-batches", ERROR, "data", "", where="train, batch 3")).where
    assert where["line"] == batches.__code__.co_firstlineno
    # there is none
    assert located(bench, Finding("loss-sign", ERROR, "init", "", where="loss")).where == "loss"
    assert defined(np.zeros) is None


def test_a_model_that_does_not_bear_the_probe_keeps_its_plain_where():
    class Fussy(Tiny):
        def __call__(self, tokens):
            if tokens.shape != (4, 16):
                raise RuntimeError("4 rows of 16")
            return super().__call__(tokens)

    bench = Bench(subject(model=Fussy))
    finding = Finding("future-leak", ERROR, "init", "", where="model")
    assert located(bench, finding).where == "model"
    note = Finding("frozen-parameters", NOTE, "init", "", where="head.weight")
    assert located(bench, note) is note
