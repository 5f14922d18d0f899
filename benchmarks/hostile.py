"""Hand-made kinds of bad input that mangling good ones would not find, as strategies of hypothesis."""

from __future__ import annotations

import pyarrow
from hypothesis import strategies as st

# Numbers that a machine word, a float or the parser of integers does not hold, or that ask for terabytes or years.
NUMBERS = ["10000000", "100000000", str(2**63 - 1), "1" + "0" * 400, "9" * 5000, "[" * 50_000]

# Texts that take time or memory by the square of their length where care is not taken, and one that no file can hold.
TEXTS = st.sampled_from(
    [
        "<|endoftext|>".join(f"Tom saw {i} birds." for i in range(20_000)),
        "Tom e" + "\u0301\u0323" * 100_000 + " ran.",
        "Tom saw the cat. " * 100_000,
        "x" * 1_000_000,
        "Tom" + " " * 1_000_000 + "ran.",
        "Tom \ud800 ran.",
        "\ufeff\u202e\u200b",
    ]
)


def among_good_ones(text: str) -> list[str]:
    """Stories of which one is ``text``."""
    return [*(f"Tom saw {i} birds." for i in range(8)), text]


# Columns of one name, of many names, of names that break lines.
TABLES = st.one_of(
    st.lists(st.sampled_from(["text", "n", ""]), min_size=1, max_size=4),
    st.integers(100, 3000).map(lambda count: [f"column {i}" for i in range(count)]),
    st.lists(st.text(max_size=2000), min_size=1, max_size=3),
).map(lambda names: pyarrow.table([pyarrow.array(["One.", "Two."])] * len(names), names=names))

# Variables that libraries and terminals are asked by, and what they may be set to by mistake.
_VARIABLES = (
    "HOME TERM COLUMNS LINES LANG LC_ALL TZ NO_COLOR FORCE_COLOR XDG_CACHE_HOME MPLCONFIGDIR MPLBACKEND "
    "HF_HOME MLXSTORIES_BLAS OMP_NUM_THREADS SOURCE_DATE_EPOCH"
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(_VARIABLES.split()),
    st.sampled_from(["", "0", "-1", "x", "1000000000", "/dev/null", "/dev/null/x", "\x1b[31m", "ünïcode"]),
    max_size=4,
)

# Names of runs: mathematics to matplotlib, markup to a browser, commands to a terminal, and some that no run has.
NAMES = st.one_of(
    st.sampled_from(
        ["$\\frac{x$", "_x", "<b onclick=alert(1)>", "{{ 7 * 7 }}", "\x1b[2J", "\u202egnp", "a\nb"]
    ),
    st.text("$\\_^{}<>&%#", min_size=1, max_size=20),
    st.sampled_from(["", "..", "../outside", "x" * 300, "no such run"]),
)
