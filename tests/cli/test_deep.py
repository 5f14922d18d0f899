"""When `debug` offers --deep."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlxstories.cli.deep import _explained
from mlxstories.findings import ERROR


@pytest.mark.parametrize(
    ("codes", "explained"),
    [
        ([], False),
        (["cannot-overfit"], False),
        (["cannot-overfit", "wrong-loss"], True),
        (["wrong-loss"], True),
    ],
)
def test_what_only_comes_of_a_mistake_explains_nothing(codes, explained):
    found = [SimpleNamespace(code=code, severity=ERROR) for code in codes]
    assert _explained(SimpleNamespace(findings=found)) == explained
