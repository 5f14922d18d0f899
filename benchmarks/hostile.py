"""Hand-made kinds of bad input that mangling good ones would not find, as strategies of hypothesis."""

from __future__ import annotations

import pyarrow
from hypothesis import strategies as st

# Numbers that a machine word, a float or the parser of integers does not hold, or that ask for terabytes or years.
NUMBERS = ["10000000", "100000000", str(2**63 - 1), "1" + "0" * 400, "9" * 5000, "[" * 50_000]

# Columns of one name, of many names, of names that break lines.
TABLES = st.one_of(
    st.lists(st.sampled_from(["text", "n", ""]), min_size=1, max_size=4),
    st.integers(100, 3000).map(lambda count: [f"column {i}" for i in range(count)]),
    st.lists(st.text(max_size=2000), min_size=1, max_size=3),
).map(lambda names: pyarrow.table([pyarrow.array(["One.", "Two."])] * len(names), names=names))
