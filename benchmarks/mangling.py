"""Bad input made of good input, as strategies of hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 10**7, 2**31, 2**63, 10**30, -(10**30)]),
    st.sampled_from([0.0, -1.5, 1e308, float("nan"), float("inf"), -float("inf")]),
    st.sampled_from(
        ["", "x", "..", "../../outside/kept", "/etc/passwd", "a\nb", "\0", "\ud800", "é" * 9, "1"]
    ),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=4),
)


def mangled(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were ``content``."""
    place = st.integers(0, len(content))

    def flip(places: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for at, bit in places:
            if at < len(changed):
                changed[at] ^= 1 << bit
        return bytes(changed)

    return st.one_of(
        st.lists(st.tuples(place, st.integers(0, 7)), min_size=1, max_size=6).map(flip),
        place.map(lambda cut: content[:cut]),
        st.tuples(place, place).map(lambda ends: content[: min(ends)] + content[max(ends) :]),
        st.tuples(place, st.binary(max_size=40)).map(
            lambda new: content[: new[0]] + new[1] + content[new[0] :]
        ),
        st.binary(max_size=100),
        st.sampled_from([b"", b"\0" * 64, b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b'{"a":' * 50_000]),
    )


@st.composite
def mangled_json(draw, value: Any) -> Any:
    """A JSON value that was ``value``: a few members are replaced, removed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        inside = value
        while True:
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inside[key], dict | list) and inside[key] and draw(st.integers(0, 4)):
                inside = inside[key]
                continue
            action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
            if action == "remove":
                del inside[key]
            elif action == "add" and isinstance(inside, dict):
                inside[draw(st.sampled_from(["x", "..", ""]))] = draw(JUNK)
            else:
                inside[key] = draw(JUNK)
            break
    return value


def spoiled(content: bytes) -> st.SearchStrategy[bytes]:
    """A JSON file, spoiled in its bytes or in its values."""
    by_value = mangled_json(json.loads(content)).map(lambda value: json.dumps(value).encode())
    return st.one_of(by_value, mangled(content))
