"""The script's own tokenizer, where it is at hand beside its training loop."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from mlxstories.ladder.bench.data.ends import END_NAMES
from mlxstories.ladder.bench.data.texts import ids_of
from mlxstories.ladder.where.places import frames, own_file

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_ENDS = (*END_NAMES, "eot_token")  # tiktoken's name
_TEXT = "Once upon a time"


class Tokenizer:
    """A script's tokenizer in its own world.

    Attributes:
        eos_token_id: the id that it names as the end of a text, if any.
    """

    def __init__(self, script: CapturedScript, own: Any):
        self._script, self._own = script, own
        ends = (_of(own, name) for name in _ENDS)
        self.eos_token_id = next((int(e) for e in ends if isinstance(e, (int, np.integer))), None)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError on what it does not give back: an id may stand for all that it does not know, and for a
        word as well."""
        ids = self.ids(text)
        if _plain(text) not in _plain(self.decode(ids)):
            raise ValueError(f"{text!r} is not in its vocabulary")
        return ids

    def ids(self, text: str) -> list[int]:
        with self._script.inside():
            return ids_of(self._own, text)

    def decode(self, ids: list[int]) -> str:
        with self._script.inside():
            return str(self._own.decode([int(i) for i in ids]))


def _of(own: Any, name: str) -> Any:
    """An attribute, or None: tiktoken raises KeyError where a vocabulary has no end token."""
    with suppress(Exception):
        return getattr(own, name, None)


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def at_hand(frame: types.FrameType | None) -> list[Any]:
    """Objects in the frames at work, and parts of these, that can encode and decode; the nearest first."""
    found: dict[int, Any] = {}
    for one in frames(frame):
        known = list(one.f_locals.values())
        if own_file(one.f_code.co_filename):
            known += one.f_globals.values()
        near = [*known, *(part for value in known for part in _parts(value))]
        found |= {id(value): value for value in near if _codes(value) and id(value) not in found}
    return list(found.values())


def _parts(value: Any) -> Iterator[Any]:
    if not isinstance(value, (type, types.ModuleType)):
        yield from list(getattr(value, "__dict__", {}).values())


def _codes(value: Any) -> bool:
    if isinstance(value, (type, types.ModuleType, str, bytes)):
        return False
    kind = type(value)
    return all(callable(getattr(kind, name, None)) for name in ("encode", "decode"))


def tokenizer_of(script: CapturedScript) -> Tokenizer | None:
    """The first of them that reads the script's batches, and writes ids of its vocabulary."""
    rows = script.batches[0][0][:4].tolist()
    for own in script.loop.seen.tokenizers:
        tokenizer = Tokenizer(script, own)
        try:
            ids, texts = tokenizer.ids(_TEXT), [tokenizer.decode(row) for row in rows]
        except Exception:  # not what its name says, or made for other ids
            continue
        if ids and any(texts) and min(ids) >= 0 and max(ids) < script.roles.first.vocab:
            return tokenizer
    return None
