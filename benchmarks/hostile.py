"""Hand-made kinds of bad input that mangling good ones would not find, as strategies of hypothesis."""

from __future__ import annotations

import pyarrow
from hypothesis import strategies as st

# Columns of one name, of many names, of names that break lines.
TABLES = st.one_of(
    st.lists(st.sampled_from(["text", "n", ""]), min_size=1, max_size=4),
    st.integers(100, 3000).map(lambda count: [f"column {i}" for i in range(count)]),
    st.lists(st.text(max_size=2000), min_size=1, max_size=3),
).map(lambda names: pyarrow.table([pyarrow.array(["One.", "Two."])] * len(names), names=names))
