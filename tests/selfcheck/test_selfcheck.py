"""`info --check`: every line passes on a healthy machine and fails on one that computes something else."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from mlxstories.backend import embedding, kernels
from mlxstories.cli import main
from mlxstories.selfcheck import against_mlx_lm, resuming, speed
from mlxstories.selfcheck import device as selfcheck

numbers_that_differ = resuming.numbers_that_differ


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shape = dataclasses.replace(selfcheck.SHAPE, vocab_size=23, dim=16, layers=1, hidden=None, context=12)
    monkeypatch.setattr(selfcheck, "SHAPE", shape)
    monkeypatch.setattr(selfcheck, "UPDATES", 6)
    monkeypatch.setattr(selfcheck._Bench, "_compiled", lambda self: 0.0)  # takes a compiler seconds
    monkeypatch.setattr(resuming, "numbers_that_differ", lambda: 0.0)  # three processes, tested below


def failed() -> set[str]:
    return {line.name for line in selfcheck.check() if not line.passed}


def test_a_healthy_machine_passes_and_goes_back_to_what_it_was():
    lines = list(selfcheck.check())
    assert all(line.passed for line in lines), lines
    assert {line.name for line in lines} >= {
        "loss",
        "gradients",
        "one update of lion",
        "6 updates of phase 3",
    }
    assert kernels.on_cpu() == (mx.default_device() == mx.cpu)


@pytest.mark.parametrize(
    ("module", "kernel", "seen"),
    [
        (mx.fast, "scaled_dot_product_attention", {"decoding against the CPU"}),
        (mx, "softmax", {"gradients", "one update of phase 1"}),
    ],
)
def test_a_wrong_kernel_is_seen_by_all_that_use_it(monkeypatch, module, kernel, seen):
    right = getattr(module, kernel)
    monkeypatch.setattr(module, kernel, lambda *a, **k: 1.01 * right(*a, **k))
    assert failed() >= seen


def test_a_gradient_of_one_order_is_what_repeats(monkeypatch):
    """Adding in an order of chance, as a GPU's scatter does, fails the last line alone."""
    draw = np.random.default_rng()

    def by_chance(rows, numbers, count):
        order = mx.array(draw.permutation(len(rows)))
        return mx.zeros((count, rows.shape[1])).at[numbers[order]].add(rows[order])

    monkeypatch.setattr(embedding, "_by_product", by_chance)
    monkeypatch.setattr(embedding, "_by_sorting", by_chance)
    assert failed() == {"numbers that differ when updates are repeated"}


def test_what_cannot_be_computed_fails_and_the_rest_goes_on(monkeypatch):

    def broken(place):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(selfcheck, "_lookup", broken)
    lines = {line.name: line for line in selfcheck.check()}
    assert "no such kernel" in lines["gradient of an embedding, large"].reason
    assert not lines["gradient of an embedding, large"].passed and lines["loss"].passed


def test_coarse_products_widen_what_is_made_of_them_but_not_repetition(monkeypatch):
    monkeypatch.setattr(selfcheck, "_product", lambda: 1e-3)
    tolerances = {line.name: line.tolerance for line in selfcheck.check()}
    assert tolerances["loss"] == pytest.approx(0.03)
    assert tolerances["numbers that differ when updates are repeated"] == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_ends_with_one_where_a_line_fails(monkeypatch, as_json):
    lines = [selfcheck.Line("loss", 1e-7, 1e-5), selfcheck.Line("gradients", float("nan"), 1e-4, "Oops: why")]
    monkeypatch.setattr(against_mlx_lm, "compare_speed", lambda: against_mlx_lm.Comparison(300.0, 200.0))
    monkeypatch.setattr(speed, "speeds", lambda: [speed.Speed("debug", 1234.5, 67.0)])
    for found, code in ((lines, 1), (lines[:1], 0)):
        monkeypatch.setattr(selfcheck, "check", lambda found=found: iter(found))
        result = CliRunner().invoke(main, ["info", "--check", *["--json"] * as_json])
        assert result.exit_code == code, result.output
        if as_json:
            assert [line["passed"] for line in json.loads(result.output)["lines"]] == [True, False][
                : len(found)
            ]
        else:
            assert "300 tokens a second, mlx-lm 200 (ratio 1.50)" in result.output
            assert "1,234" in result.output or "1,235" in result.output
            assert ("FAILED Oops: why" in result.output) == bool(code)


@pytest.mark.long
def test_a_killed_training_is_resumed_to_the_same_weights_and_others_are_counted(monkeypatch):
    assert numbers_that_differ() == 0
    monkeypatch.setattr(resuming, "_RECIPE", (*resuming._RECIPE, "--set", "no_such_field=1"))
    with pytest.raises(RuntimeError, match="no_such_field"):
        numbers_that_differ()


def test_one_story_is_told_here_and_by_mlx_lm(monkeypatch):
    monkeypatch.setattr(against_mlx_lm, "_TOKENS", 8)
    compared = against_mlx_lm.compare_speed()
    assert compared.ours > 0 and compared.theirs > 0


def test_tokens_a_second_are_counted(monkeypatch):
    monkeypatch.setattr(speed, "SIZES", ("debug",))
    monkeypatch.setattr(speed, "_rate", lambda work: float(work(0)))
    (found,) = speed.speeds()
    assert found.training == 8 * 256 and 0 < found.sampling <= 8 * 32
