"""Sets of hashes, against numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlxstories.ladder.bench.data.hashing import among, distinct, rolling

HASHES = hnp.arrays(
    np.uint64,
    hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=30),
    elements=st.sampled_from([0, 1, 2, 2**63, 2**64 - 2, 2**64 - 1]),
)


@given(HASHES)
def test_each_hash_is_given_once_and_in_order(hashes):
    assert np.array_equal(distinct(hashes), np.unique(hashes))


@given(HASHES, HASHES)
def test_those_among_others_are_found_where_they_stand(hashes, known):
    assert np.array_equal(among(hashes, known), np.isin(hashes, known))


@given(hnp.arrays(np.int64, st.tuples(st.integers(0, 4), st.integers(0, 12)), elements=st.integers(-1, 1)))
def test_windows_have_one_hash_where_their_ids_are_the_same(rows):
    hashes = rolling(rows, 3)
    assert hashes.shape == (rows.shape[0], max(0, rows.shape[1] - 2))
    windows = [tuple(row[at : at + 3]) for row in rows for at in range(hashes.shape[1])]
    assert len(set(hashes.ravel().tolist())) == len(set(windows))
