"""Configurations, groups of parameters, and the phases made of them."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map

from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import OPTIMIZERS, OptimizerConfig, build_optimizer, build_schedule, orthogonalize
from mlxstories.optim.muon import POLYNOMIALS
from mlxstories.optim.schedules import linear
from mlxstories.storage.serialize import from_dict, to_dict
from mlxstories.training.phases import PHASE_1, PHASE_2, PHASE_3, PHASES, Phase, differences, override


def small_model():
    parts = {"norm": "layer", "positions": "learned", "tied": False, "feed_forward": "gelu"}
    return Transformer(ModelConfig(40, dim=16, layers=2, heads=2, context=8, **parts))


def moved_by(config: OptimizerConfig, gradient: float) -> set[str]:
    """Names of the parameters that one update with equal gradients changes."""
    model = small_model()
    model.update(tree_map(mx.ones_like, model.parameters()))
    gradients = tree_map(lambda p: mx.full(p.shape, gradient), model.trainable_parameters())
    build_optimizer(config).update(model, gradients)
    return {name for name, value in tree_flatten(model.parameters()) if (value != 1).any().item()}


def names() -> set[str]:
    return {name for name, _ in tree_flatten(small_model().parameters())}


RULES = {"adamw": "AdamW", "adam": "AdamW", "nadamw": "NAdamW", "lion": "Lion", "sgd": "SGD"}


@pytest.mark.parametrize("name", RULES)
def test_a_name_gives_its_rule(name):
    assert RULES.keys() | {"muon"} == set(OPTIMIZERS)
    plain = build_optimizer(OptimizerConfig(name, weight_decay=0.0))
    grouped = build_optimizer(OptimizerConfig(name, weight_decay=0.1, decay="matrices"))
    assert [type(rule).__name__ for rule in (plain, *grouped.optimizers)] == 3 * [RULES[name]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_spares_embeddings_norms_and_biases(name):
    spared = {
        n for n in names() if "norm" in n or n.endswith("bias") or n.split(".")[0] in ("embed", "position")
    }
    assert spared and spared < names()
    config = OptimizerConfig(name, weight_decay=0.1)
    assert moved_by(config, 0.0) == names() - spared
    assert moved_by(dataclasses.replace(config, weight_decay=0.0), 0.0) == set()
    assert moved_by(config, 1.0) == names()


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"muon"}))
def test_decay_of_all_spares_nothing(name):
    assert moved_by(OptimizerConfig(name, weight_decay=0.1, decay="all"), 0.0) == names()


def test_muon_takes_the_hidden_matrices():
    optimizer = build_optimizer(OptimizerConfig("muon", weight_decay=0.1))
    optimizer.init(small_model().trainable_parameters())
    states = dict(tree_flatten(optimizer.state["states"][0]))
    matrices = {name.removesuffix(".m") for name in states if "blocks" in name}
    expected = {
        f"blocks.{block}.{part}.weight"
        for block in range(2)
        for part in (
            *(f"attention.{matrix}" for matrix in ("query", "key", "value", "out")),
            *(f"feed_forward.{matrix}" for matrix in ("up", "down")),
        )
    }
    assert matrices == expected
    assert "head_projection.weight.v" in dict(tree_flatten(optimizer.state["states"][1]))
    assert "embed.weight.v" in dict(tree_flatten(optimizer.state["states"][2]))


def test_groups_share_one_shape():
    config = OptimizerConfig("muon", learning_rate=0.02, rest_learning_rate=0.004)
    optimizer = build_optimizer(config, linear(0.02, 0.0, 4))
    model = small_model()
    rates = []
    for _ in range(4):
        optimizer.update(model, tree_map(mx.zeros_like, model.trainable_parameters()))
        rates.append([member.learning_rate.item() for member in optimizer.optimizers])
    assert rates == [pytest.approx([0.02 * s, 0.004 * s]) for s in (1, 0.75, 0.5, 0.25)]
    assert optimizer.step.item() == 4 and optimizer.learning_rate.item() == pytest.approx(0.005)


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_muon_takes_the_orthogonalizer(name):
    model = small_model()
    before, gradients = model.parameters(), tree_map(lambda w: mx.sin(w * 100), model.trainable_parameters())
    build_optimizer(OptimizerConfig("muon", learning_rate=1.0, orthogonalizer=name)).update(model, gradients)
    weight, moved, gradient = (
        tree["blocks"][0]["attention"]["out"]["weight"] for tree in (before, model.parameters(), gradients)
    )
    expected = weight - 0.2 * 16**0.5 * orthogonalize(gradient, name)  # the matrix is 16 x 16
    assert mx.allclose(moved, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adamax"}, "optimizer must be one of adamw, adam, .*; got 'adamax'"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
        ({"learning_rate": "fast"}, "got 'fast'"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be a number at least 0 and below 1; got 1.0"),
        ({"betas": (0.9,)}, "two numbers"),
        ({"eps": -1}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"decay": "some"}, "decay must be one of matrices, all"),
        ({"momentum": 1}, "momentum"),
        ({"amsgrad": 1}, "amsgrad must be true or false"),
        ({"name": "lion", "amsgrad": True}, "amsgrad belongs to adamw and adam; the optimizer is lion"),
        ({"name": "sgd", "bias_correction": False}, "belongs to adamw and adam"),
        ({"rest_learning_rate": 1e-3}, "belongs to muon"),
        ({"name": "muon", "rest_learning_rate": 0.0}, "rest_learning_rate"),
        ({"name": "muon", "orthogonalizer": "qr"}, "orthogonalizer must be one of jordan, polar_express"),
        ({"orthogonalizer": "polar_express"}, "belongs to muon"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(StoriesError, match=message):
        OptimizerConfig(**options)


@pytest.mark.parametrize("number", PHASES)
def test_phases_survive_json_and_train(number):
    phase = PHASES[number]
    assert from_dict(Phase, to_dict(phase), "phase") == phase
    schedule = build_schedule(phase.schedule, phase.optimizer.learning_rate, 20)
    optimizer, model = build_optimizer(phase.optimizer, schedule), small_model()
    before = dict(tree_flatten(model.parameters()))
    optimizer.update(model, tree_map(mx.ones_like, model.trainable_parameters()))
    for name, value in tree_flatten(model.parameters()):
        assert mx.isfinite(value).all().item() and (value != before[name]).any().item(), name


def test_phase_2_is_phase_1_and_five_ingredients():
    assert differences(PHASE_1, PHASE_2) == {
        "optimizer.betas": ((0.9, 0.999), (0.9, 0.98)),
        "optimizer.weight_decay": (0.0, 0.01),
        "schedule.name": ("warmup_linear", "warmup_cosine"),
        "label_smoothing": (0.0, 0.1),
        "accumulation": (1, 2),
    }
    assert differences(PHASE_3, PHASE_3) == {}


def test_override_changes_just_the_named_fields():
    changes = {"optimizer.learning_rate": 3e-4, "schedule.name": "noam", "clip_norm": None, "accumulation": 4}
    changed = override(PHASE_1, changes)
    assert {path: new for path, (_, new) in differences(PHASE_1, changed).items()} == changes
    assert override(PHASE_1, {}) == PHASE_1
    with pytest.raises(StoriesError, match=r"no field 'optimizer.lr'; its fields are name, optimizer.name, "):
        override(PHASE_1, {"optimizer.lr": 1.0})
    with pytest.raises(StoriesError, match="no field 'optimizer'"):
        override(PHASE_1, {"optimizer": None})
    for path, value in {
        "clip_norm": 0,
        "label_smoothing": 1.0,
        "accumulation": 1.5,
        "qk_norm": "yes",
    }.items():
        with pytest.raises(StoriesError, match=path):
            override(PHASE_1, {path: value})
