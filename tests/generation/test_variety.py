"""How varied texts are, by hand."""

import numpy as np
import pytest

from mlxstories.generation.variety import text_statistics


def test_statistics_by_hand():
    looping = text_statistics([[1, 2, 1, 2, 1, 2, 1]])
    assert looping.distinct_1 == pytest.approx(2 / 7)
    assert looping.distinct_2 == pytest.approx(2 / 6)
    assert looping.distinct_3 == pytest.approx(2 / 5)
    assert looping.repeated_4 == pytest.approx(1 - 2 / 4)
    two = text_statistics([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    assert (two.distinct_1, two.repeated_4) == (0.5, 0.0)
    empty = text_statistics([[], [1]])
    assert (empty.distinct_1, empty.distinct_2, empty.repeated_4) == (1.0, 0.0, 0.0)
    assert np.isfinite(text_statistics([]).distinct_1)
