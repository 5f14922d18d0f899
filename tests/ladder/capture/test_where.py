"""The lines of a script at which findings about the ladder's stand-ins of its parts lie."""

from __future__ import annotations

import pytest

from mlxstories.findings import ERROR, Finding
from mlxstories.ladder.diagnosis import Diagnosis
from tests.ladder.scripts import LOOP, MODEL, line_of

TEXT = MODEL + LOOP


@pytest.fixture
def script(captured):
    return captured(TEXT)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("the data", "loss, grads = step("),
        ("the loss", "return nn.losses.cross_entropy("),
        ("the step", "optimizer.update("),
        ("the optimizer", "optimizer = optim.AdamW("),
    ],
)
def test_a_part_that_an_exchange_accuses_has_its_line(script, part, line):
    finding = Finding("behind-reference", ERROR, "exchange", "", where=part)
    (found,) = script.located(Diagnosis("train.py", [finding], [], 0.0)).findings
    assert found.where["line"] == line_of(TEXT, line)
