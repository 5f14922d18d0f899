"""Baselines of counts, by hand."""

import math

import numpy as np
import pytest

from mlxstories.data.counts import baselines
from mlxstories.data.packing import Documents


def documents(*stories):
    return Documents.of([np.array(story, dtype=np.uint16) for story in stories])


def test_frequencies_and_pairs_by_hand():
    """Trained on "3 3 4 end", held out "3 end", over 5 tokens: counts 2, 1, 1 of 4, each with a half added."""
    found = baselines(documents([3, 3, 4]), documents([3]), 5)
    share = {3: 2.5 / 6.5, 4: 1.5 / 6.5, 0: 1.5 / 6.5}
    assert found["frequencies"] == pytest.approx(-(math.log(share[3]) + math.log(share[0])) / 2)
    # after the beginning one token came once, a 3; after 3 two kinds came, a 3 and a 4, and never the end
    first, second = (1 + 1 * share[3]) / (1 + 1), (0 + 2 * share[0]) / (2 + 2)
    assert found["pairs"] == pytest.approx(-(math.log(first) + math.log(second)) / 2)
