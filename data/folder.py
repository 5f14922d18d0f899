"""What is in a folder of texts: which files are stories, which are not read and why, and what they share."""

from __future__ import annotations

import codecs
import glob
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mlxstories.data.documents import READERS, missing, readable
from mlxstories.data.encodings import encoding_of
from mlxstories.data.front_matter import MARKDOWN, text_of
from mlxstories.data.paragraphs import LOOKED_AT, width_of
from mlxstories.errors import StoriesError, listed

TEXT = {".txt", ".text", *MARKDOWN}
LINES = {".jsonl", ".ndjson", ".json"}
TABLE = {".parquet"}
COLUMNS = {".csv", ".tsv"}
# texts, in formats that no library here reads
_CONVERTIBLE = {".azw3", ".doc", ".mobi", ".odt", ".pages", ".rtf"}
_PACKED = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
_LOOKED_AT = 2000  # files
_LONG_ENOUGH = 20  # characters of a line that is no accident where it stands in many files
_OFTEN = 0.5  # share of the files in which boilerplate stands
_NAMED = 3  # files of a kind
_SHORT = 1 << 14  # bytes
_FEWEST = 4  # files among which lines are compared


def has_fields(path: Path) -> bool:
    """Whether a file holds records, of which one field is the text."""
    return path.suffix.lower() in LINES | TABLE | COLUMNS


def is_plain(path: Path) -> bool:
    """Whether a file is read as text, as those of any suffix are that is not known."""
    return not has_fields(path) and path.suffix.lower() not in READERS


@dataclass
class Contents:
    """The files of a folder, in sorted order.

    Attributes:
        read: those that stories are read from.
        empty: those of no bytes, or short texts of spaces and front matter alone.
        hidden: how many begin with a dot, or lie in a folder that does.
        unread: by suffix those that are not read.
    """

    read: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    hidden: int = 0
    unread: dict[str, list[Path]] = field(default_factory=dict)


def contents(folder: Path) -> Contents:
    """What there is in ``folder`` and the folders in it."""
    found = Contents()
    for file in sorted(folder.rglob("*")):
        suffix = file.suffix.lower()
        if not file.is_file():
            continue
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            found.hidden += 1
        elif _without_text(file):
            found.empty.append(file)
        elif suffix in TEXT | LINES | TABLE or readable(suffix):
            found.read.append(file)
        else:
            found.unread.setdefault(suffix, []).append(file)
    return found


def _without_text(file: Path) -> bool:
    size = file.stat().st_size
    if size > _SHORT or file.suffix.lower() not in TEXT:
        return size == 0
    try:
        return not any(line.strip() for line in text_of(file)[0])
    except StoriesError:  # which the reader meets where it is
        return False


@dataclass(frozen=True)
class _Source:
    """The files that stories are read from, of a ``path`` as it was given.

    Attributes:
        inside: what there is in it, where it is a folder.
        pattern: whether it is one, and no file.
    """

    path: Path
    files: list[Path]
    inside: Contents | None = None
    pattern: bool = False


def source_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that stories are read from, those of a folder or a pattern in sorted order.

    Raises:
        StoriesError: one does not exist, or a folder or pattern holds none.
    """
    found = [file for path in paths for file in _source(Path(path)).files]
    if not found:
        raise StoriesError("no files were named; give at least one file or directory of stories")
    return found


def _source(path: Path) -> _Source:
    if os.path.isdir(path):  # which, unlike Path, take a name too long for one that is not there
        inside = contents(path)
        if not inside.read:
            hint = "".join(f"; {sentence}" for sentence in _unread(inside, path))
            raise StoriesError(f"{path} holds no .txt, .md, .jsonl, .json or .parquet files{hint}")
        return _Source(path, inside.read, inside)
    if os.path.isfile(path):
        if path.suffix.lower() in _PACKED:
            raise StoriesError(f"{path} is packed; unpack it and give what is in it")
        if path.suffix.lower() in _CONVERTIBLE:
            raise StoriesError(f"{path} is no plain text; save it as .txt and give that")
        return _Source(path, [path])
    if matched := matching(path):
        return _Source(path, matched, pattern=True)
    if path.parts[:1] in (("http:",), ("https:",)):
        raise StoriesError(f"{path.name} lies on the web; download it and give the file")
    wrong = "is no regular file" if os.path.exists(path) else "does not exist"
    raise StoriesError(f"{path} {wrong}; give a file or a directory of stories")


def matching(pattern: Path) -> list[Path]:
    """The files, but for empty ones, whose names match a pattern such as ``code/**/*.py``, in sorted order."""
    if not glob.has_magic(str(pattern)) or os.path.lexists(pattern):
        return []
    files = map(Path, glob.glob(str(pattern), recursive=True))
    return sorted(file for file in files if file.is_file() and file.stat().st_size)


def remarks(paths: Iterable[str | os.PathLike[str]], *, separator: str = "auto") -> Iterator[str]:
    """Sentences on what a user would want to know of these sources before they are trained on."""
    sources = [_source(Path(path)) for path in paths]
    for source in sources:
        if source.inside or source.pattern:
            count = len(source.files)
            yield f"{source.path}: {count:,} file{'s' if count != 1 else ''} read"
        if source.inside:
            yield from _unread(source.inside, source.path)
    files = [file for source in sources for file in source.files]
    lined = [file for file in files if file.suffix.lower() not in READERS.keys() | TABLE][:_LOOKED_AT]
    converted: dict[str, list[Path]] = {}
    for path in lined:
        if (encoding := encoding_of(path)) != "utf-8":
            converted.setdefault(encoding, []).append(path)
    for encoding, files in converted.items():
        yield f"{_counted(files)} in {encoding} and not UTF-8: converted"
    texts = [path for path in lined if path.suffix.lower() in TEXT]
    if count := sum(text_of(path)[1] for path in texts):
        yield (
            f"{count:,} file{'s begin' if count > 1 else ' begins'} with front matter, such as titles and tags between "
            "lines of ---: left out"
        )
    joined = texts if separator != "line" else []
    if widths := [width for path in joined if (width := broken_at(path))]:
        yield (
            f"{len(widths):,} file{'s have' if len(widths) > 1 else ' has'} lines broken at about {max(widths)} "
            "characters: joined to paragraphs"
        )
    yield from _boilerplate(texts)


def broken_at(path: Path) -> int | None:
    """The width at which the lines of a text file were broken, or None; a pipe, which is read once, is as it is."""
    if not path.is_file():
        return None
    try:
        return width_of(islice(text_of(path)[0], LOOKED_AT))
    except StoriesError:  # which the reader meets where it is
        return None


def _unread(inside: Contents, folder: Path) -> Iterator[str]:
    others = []
    for suffix, files in sorted(inside.unread.items()):
        if suffix in READERS:
            yield f"not read: {_counted(files)}: {missing(suffix)}"
        elif suffix in _CONVERTIBLE:
            yield f"not read: {_counted(files)}: save as .txt"
        elif suffix in _PACKED:
            yield f"not read: {_counted(files)}: unpack first"
        else:
            others.append(_counted(files))
    if inside.empty:
        count = len(inside.empty)
        which = listed((file.name for file in inside.empty), _NAMED)
        others.append(f"{count} empty file{'s' if count > 1 else ''} ({which})")
    if inside.hidden:
        others.append(f"{inside.hidden} hidden file{'s' if inside.hidden > 1 else ''} (such as .DS_Store)")
    if others:
        hint = _by_name(inside, folder)
        yield f"not read: {listed(others)}{hint}"


def _by_name(inside: Contents, folder: Path) -> str:
    """What reads the commonest files that are text too, such as programs, or nothing."""
    for suffix, files in sorted(inside.unread.items(), key=lambda kind: -len(kind[1])):
        if suffix and _is_text(files[0]):
            flat = all(file.parent == folder for file in files)
            pattern = folder / ("" if flat else "**") / f"*{files[0].suffix}"
            how = "" if suffix in COLUMNS else " as text"
            return f"; --data {shlex.quote(str(pattern))} reads the {suffix} files{how}"
    return ""


def _is_text(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            start = opened.read(_SHORT)
            return b"\0" not in start and bool(codecs.getincrementaldecoder("utf-8")().decode(start))
    except (OSError, UnicodeDecodeError):
        return False


def _counted(files: list[Path]) -> str:
    """a.docx; or 12 .docx files (a.docx, b.docx and 10 more)."""
    if len(files) == 1:
        return files[0].name
    kind = f"{files[0].suffix} " if files[0].suffix else ""
    return f"{len(files)} {kind}files ({listed((file.name for file in files), _NAMED)})"


def _boilerplate(files: list[Path]) -> Iterator[str]:
    """Lines that stand in most files, as licences and headers do."""
    if len(files) < _FEWEST:
        return
    places: Counter[str] = Counter()
    for path in files:
        long = (line.strip() for line in islice(text_of(path)[0], 10_000))
        places.update(list(dict.fromkeys(line for line in long if len(line) >= _LONG_ENOUGH)))
    repeated = [(line, count) for line, count in places.most_common() if count > _OFTEN * len(files)]
    if repeated:
        line, count = repeated[0]
        more = f" and {len(repeated) - 1} more lines like it" if len(repeated) > 1 else ""
        yield (
            f"{line[:60]!r} stands in {count} of {len(files)} files{more}: the model will tell it too, so take "
            "out what is no story"
        )
