"""The cost of a step against counts by hand and what MLX allocates."""

import json

import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.model import ModelConfig, parameter_count
from mlxstories.training import cost

LLAMA = ModelConfig(50, dim=16, layers=2, heads=2, hidden=24, context=8)


def test_arithmetic_by_hand():
    found = cost.training_cost(LLAMA, 3)
    matrices = 2 * (4 * 16 * 16 + 3 * 16 * 24) + 50 * 16
    attention = 2 * 4 * 16 * (1 + 2 + 3 + 4 + 5 + 6 + 7 + 8) / 8  # position t sees t + 1
    assert found.flops == 3 * 3 * 8 * (2 * matrices + attention)
    assert found.tokens == 24


@pytest.mark.parametrize("parts", [{}, {"norm": "layer", "positions": "learned", "feed_forward": "gelu"}])
def test_activations_are_what_mlx_allocates(parts):
    config = ModelConfig(64, dim=64, layers=4, heads=4, context=128, **parts)
    step, batch = cost._phase_1(config), cost._rows(config, 32)
    step([batch], 0)  # compiles, and makes the optimiser's state
    mx.eval(step.model.state, step.optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(step([batch], 1))
    kept = cost.training_cost(config, 32).activation_bytes
    assert 0.5 < (mx.get_peak_memory() - before) / kept < 2


def test_operations_grow_with_the_layers_and_compute_nothing():
    few, many = (
        cost.operations(
            cost._phase_1(ModelConfig(50, dim=16, layers=n, heads=2, context=8)), [cost._rows(LLAMA, 2)]
        )
        for n in (1, 3)
    )
    assert 50 < few < many < 5 * few


def test_the_command():
    options = "--size debug --vocab-size 300 --context 32 --batch-size 2"
    found = json.loads(CliRunner().invoke(main, ["info", "--cost", "--json", *options.split()]).output)
    assert found["parameters"] == parameter_count(
        cost._phase_1(ModelConfig(300, dim=64, layers=2, heads=4)).model
    )
    assert found["least_seconds"]["step"] > 0
    refused = CliRunner().invoke(main, ["info", "--cost", "--batch-size", "0"])
    assert refused.exit_code == 2 and "0 is not in the range" in refused.output
