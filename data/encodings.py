"""Lines of text files, whatever encoding they are in: UTF-8 as it stands, others recognised and converted."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mlxstories.errors import StoriesError

_PIECE = 1 << 20  # bytes
_SAMPLE = 1 << 18  # bytes that an encoding is recognised by
_LOOKED_AT = 100_000  # lines of ASCII alone after which a file is taken for UTF-8, of which ASCII is a part
_MARKS = {  # the longer ones first, for one begins another
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"
_BYTES = (_WESTERN, "cp1250", "cp1251", "cp1253", "cp1254", "koi8_r")
_SEVERAL_BYTES = ("shift_jis", "gb18030", "big5", "euc_kr", "euc_jp")


def encoding_of(path: Path) -> str:
    """The encoding of a text file by Python's name: that of its mark, UTF-8, or the one that its words look like.

    Read is only as far as the first line that is not text in ASCII, and what follows it by a few hundred KB. What is
    not recognised is called UTF-8, too.

    Raises:
        StoriesError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            if mark := next((mark for mark in _MARKS if start.startswith(mark)), None):
                return _MARKS[mark]
            file.seek(0)
            for line in islice(iter(lambda: file.readline(_PIECE), b""), _LOOKED_AT):
                if not line.isascii():
                    return _recognised(line + file.read(_SAMPLE))
                if b"\0" in line:  # binary, and maybe without end: `lines` says so
                    break
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error
    return "utf-8"


def _recognised(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError as error:
        if not sample[: error.start].isascii():  # UTF-8 before: a damaged byte, and no other encoding
            return "utf-8"
    matches = from_bytes(sample, cp_isolation=[*_BYTES, *_SEVERAL_BYTES])
    best = matches.best()
    if best is None or (not best.coherence and best.encoding not in _SEVERAL_BYTES):
        return "utf-8"  # which it is not, and `lines` says where
    # Where they look the same, the commonest.
    western = any(
        _WESTERN in match.could_be_from_charset
        and match.chaos <= best.chaos
        and match.coherence >= best.coherence
        for match in matches
    )
    return _WESTERN if western else best.encoding


def lines(path: Path) -> Iterator[str]:
    """The lines of a text with their newlines, "\\r\\n" and "\\r" as "\\n"; held in memory is
    what ends at the next "\\n".

    A pipe, which can be read only once, must be UTF-8.

    Raises:
        StoriesError: the file is binary, damaged, in an unknown encoding, or cannot be read.
    """
    encoding = encoding_of(path) if path.is_file() else "utf-8"
    if encoding != "utf-8":
        yield from _decoded(path, encoding)
        return
    offset = 0
    number = 0
    try:
        with open(path, "rb") as file:
            while line := b"".join(_pieces(file, path)):
                number += 1
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    at = offset + error.start
                    without = shlex.join(["iconv", "-c", "-f", "UTF-8", "-t", "UTF-8", str(path)])
                    raise StoriesError(
                        f"{path}, line {number} is not UTF-8 (at byte {at}) and in no encoding that is recognised: "
                        f"correct it there, save it as UTF-8, or leave such bytes out: {without} > NEW"
                    ) from None
                if offset == 0:
                    text = text.removeprefix("\ufeff")
                offset += len(line)
                yield from _ended(text)
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            for line in file:
                yield from _ended(line)
    except UnicodeDecodeError as error:
        raise StoriesError(
            f"{path} looks like {encoding} but is not ({error.reason}); convert it first"
        ) from None
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error


def _ended(line: str) -> Iterator[str]:
    """What "\\n" ends, in lines that any newline ends, as "\\n"."""
    if "\r" not in line:
        yield line
        return
    *whole, last = line.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    yield from (part + "\n" for part in whole)
    if last:
        yield last


def _pieces(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The next line in pieces, so that a binary file, which may have no lines at all, is refused at its first zero."""
    while piece := file.readline(_PIECE):
        if b"\0" in piece:
            at = file.tell() - len(piece) + piece.index(b"\0")
            raise StoriesError(f"{path} is binary (a zero byte at byte {at}); give a text file")
        yield piece
        if piece.endswith(b"\n"):
            return
