"""A handful of bad inputs for every area; `benchmarks/fuzz.py` tries ten thousand."""

import fuzz
import pytest

INPUTS = 8


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    return fuzz.Sandbox(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("area", fuzz.AREAS)
def test_bad_input_is_taken_or_refused_in_one_line(sandbox, area):
    counts, failures = fuzz.fuzz(area, sandbox, INPUTS)
    assert not failures, "\n\n".join(failures.values())
    assert counts["different"] >= INPUTS
    assert counts["refused"] > 0  # the inputs are bad ones
