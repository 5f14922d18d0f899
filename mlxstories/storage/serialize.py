"""Configuration dataclasses to JSON and back, strictly: an unknown or missing field is an error."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import cattrs
import cattrs.v
from cattrs.gen import make_dict_structure_fn

from mlxstories.errors import StoriesError
from mlxstories.findings import Place
from mlxstories.storage.files import read_text

T = TypeVar("T")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # escaped, alone or as one of a pair

_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook_factory(
    dataclasses.is_dataclass,
    lambda cls: make_dict_structure_fn(cls, _converter, _cattrs_forbid_extra_keys=True),
)


def _text_or_texts(value: Any, _type: Any) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else _converter.structure(value, tuple[str, ...])


_converter.register_structure_hook(str | tuple[str, ...], _text_or_texts)


def _place(value: Any, _type: Any) -> str | Place | None:
    if not isinstance(value, dict):
        return value if value is None else str(value)
    if not isinstance(value.get("file"), str) or not isinstance(value.get("line"), int):
        raise ValueError("where has no file and line")
    return Place(value)


_converter.register_structure_hook(str | Place | None, _place)


def to_dict(config: Any) -> dict:
    """A frozen dataclass as JSON-ready dicts, lists and scalars."""
    return _converter.unstructure(config)


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """The inverse of :func:`to_dict`.

    Raises:
        StoriesError: a field is unknown, missing or of the wrong type; ``where`` is named in the message.
    """
    if not isinstance(values, dict):
        raise StoriesError(f"{where} must be an object; got {values!r:.80}.")
    try:
        return _converter.structure(values, cls)
    except StoriesError as error:
        raise StoriesError(f"{where}: {error}") from error
    except Exception as error:
        reasons = cattrs.transform_error(error, format_exception=_reason)
        said = "; ".join(reason.removesuffix(" @ $").replace(" @ $.", " at ") for reason in reasons)
        raise StoriesError(f"{where} is not a valid {cls.__name__}: {said}") from error


def _reason(error: BaseException, cls: type | None) -> str:
    return str(error) if isinstance(error, StoriesError) else cattrs.v.format_exception(error, cls)


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree of mappings by their paths, such as ("optimizer.eps", 1e-8)."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        StoriesError: the file is missing, unreadable or not JSON.
    """
    try:
        return parse_json(read_text(path))
    except FileNotFoundError as error:
        raise StoriesError(f"{path} is missing: the directory is not a whole run.") from error
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise StoriesError(f"{path} cannot be read as JSON ({error}): it is damaged.") from error


def parse_json(text: str, *, halves: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        halves: take half characters too, which JSON can hold as an escape and no file can as text.

    Raises:
        ValueError: whatever is wrong with it, nesting too deep to follow included.
    """
    try:
        value = json.loads(text)
        if not halves and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half a character") from None
