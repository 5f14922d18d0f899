"""The cost of a step against counts by hand and what MLX allocates."""

import json
from types import SimpleNamespace

import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlxstories.backend import kernels
from mlxstories.cli import main
from mlxstories.model import ModelConfig, parameter_count, size_config
from mlxstories.training import cost
from mlxstories.training.experiment import new_model
from mlxstories.training.phases import PHASE_1, PHASES

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
    step, batch = cost.step_of(config, PHASE_1), cost.full_rows(config, 32)
    step([batch], 0)  # compiles, and makes the optimiser's state
    mx.eval(step.model.state, step.optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(step([batch], 1))
    kept = cost.training_cost(config, 32).activation_bytes
    assert 0.5 < (mx.get_peak_memory() - before) / kept < 2


def test_an_update_hands_over_more_for_more_layers_and_computes_nothing():
    few, many = (
        cost.step_of(ModelConfig(50, dim=16, layers=n, heads=2, context=8), PHASES[3]) for n in (1, 3)
    )
    few, many = (cost.handed(step, [cost.full_rows(LLAMA, 2)]) for step in (few, many))
    assert 50 < few.launches < many.launches < 3 * few.launches
    assert many.launches < many.operations


def test_what_counts_as_a_launch():
    class Sum:
        model = optimizer = SimpleNamespace(state=[])

        def prepare(self, batches, seed):
            joined = mx.concatenate([batches[0], batches[0].T.T, batches[0]])  # three copies, two views
            return [joined.reshape(-1)[:1] + 1]  # reshape, slice, and a broadcast of the 1

    found = cost.handed(Sum(), [mx.ones((2, 2))])
    assert found.launches == 3 + 1 and found.operations >= 6


@pytest.mark.parametrize(("phase", "most"), [(1, 480), (3, 670)])
def test_what_is_alike_is_handed_to_a_gpu_together(phase, most):
    """Base had 603 and 1,471 launches when each gradient had its norm and each of Muon's matrices its polynomial
    apart (`benchmarks/launches.py`)."""
    with kernels.as_on_gpu():
        step = cost.step_of(size_config("base", 512, separator=2), PHASES[phase])
        assert (
            300 < cost.handed(step, [cost.full_rows(size_config("base", 512, context=16), 1)]).launches < most
        )


def test_the_command_gives_the_cost_as_json():
    options = "--size debug --vocab-size 300 --context 32 --batch-size 2"
    found = json.loads(CliRunner().invoke(main, ["info", "--cost", "--json", *options.split()]).output)
    assert found["parameters"] == parameter_count(new_model(ModelConfig(300, dim=64, layers=2, heads=4), 0))
    assert found["least_seconds"]["step"] > 0
    assert found["handed"]["3"]["launches"] > found["handed"]["1"]["launches"] > 100
    across = json.loads(
        CliRunner().invoke(main, ["info", "--cost", "--json", "--across-stories", *options.split()]).output
    )
    assert across["handed"]["1"]["launches"] != found["handed"]["1"]["launches"]  # another mask
    refused = CliRunner().invoke(main, ["info", "--cost", "--batch-size", "0"])
    assert refused.exit_code == 2 and "0 is not in the range" in refused.output


def test_heads_that_metal_decodes_in_several_kernels_are_named():
    assert not list(cost.slow_on_metal(ModelConfig(100, dim=256, heads=4)))
    (clause,) = cost.slow_on_metal(ModelConfig(100, dim=256, heads=8))
    assert clause.startswith("heads of 32: ")
