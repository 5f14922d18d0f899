"""Stories out of files: TinyStories text, plain text, JSON lines, CSV, parquet, and documents."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlxstories.bounds import check_choice
from mlxstories.data.documents import READERS, read_document
from mlxstories.data.encodings import lines
from mlxstories.data.folder import COLUMNS, LINES, TABLE, broken_at, source_files
from mlxstories.data.front_matter import text_of
from mlxstories.data.paragraphs import joined
from mlxstories.errors import StoriesError, listed
from mlxstories.storage.serialize import parse_json

SEPARATORS = ("auto", "endoftext", "blank-line", "line", "file")
_LONGEST_CELL = 2**31 - 1  # characters
MARK = "<|endoftext|>"
_A_LINE_EACH = "write one a line, as jq -c '.[]' FILE > NEW.jsonl does of a list"


def read_documents(
    paths: Iterable[str | os.PathLike[str]], *, field: str = "text", separator: str = "auto"
) -> Iterator[str]:
    """The stories of files and of all supported files in directories, in sorted order.

    ``field`` names the text in JSON lines, CSV and parquet. In text files stories are separated by
    ``<|endoftext|>``, by blank lines, or each line or file is one; ``auto`` takes the mark if it occurs, else one
    story a file if there are several files, else blank lines. Files of any other suffix are read as text; the front
    matter of Markdown is left out, and lines that were broken at a width are joined to paragraphs, but not where each
    line is a story.

    Raises StoriesError for what is missing, unreadable, empty, binary or in an unknown encoding.
    """
    return (document for _, document in named_documents(paths, field=field, separator=separator))


def named_documents(
    paths: Iterable[str | os.PathLike[str]], *, field: str = "text", separator: str = "auto"
) -> Iterator[tuple[Path, str]]:
    """The stories that :func:`read_documents` yields, each with its file."""
    check_choice("separator", separator, SEPARATORS)
    files = source_files(paths)
    without_mark = separator
    if separator == "auto":
        without_mark = "file" if len(files) > 1 else "blank-line"
    for path in files:
        if path.suffix.lower() in LINES:
            documents = _json_lines(path, field)
        elif path.suffix.lower() in TABLE:
            documents = _parquet(path, field)
        elif path.suffix.lower() in COLUMNS:
            documents = _column(path, field)
        elif path.suffix.lower() in READERS:
            documents = read_document(path)
        elif separator == "line":
            documents = (line.strip("\n") for line in text_of(path)[0])
        else:
            documents = _plain(path, without_mark, marked=separator in ("auto", "endoftext"))
            if width := broken_at(path):
                documents = (joined(document, width) for document in documents)
        empty = True
        for document in documents:
            if document.strip():
                empty = False
                yield path, document
        if empty:
            raise StoriesError(f"{path} contains no text; leave it out or give another file")


def _plain(path: Path, without_mark: str, *, marked: bool) -> Iterator[str]:
    """Stories of a text file; what stands between two marks is given out as soon as it is complete."""
    once = None
    if without_mark == "blank-line":
        # A file is read twice, to see first whether the mark occurs at all; a pipe is kept instead.
        once = None if path.is_file() else list(text_of(path)[0])
        if not (marked and any(MARK in line for line in (lines(path) if once is None else once))):
            yield from _paragraphs(text_of(path)[0] if once is None else once)
            return
    story: list[str] = []
    for line in text_of(path)[0] if once is None else once:
        *complete, rest = line.split(MARK) if marked else [line]
        for end in complete:
            yield "".join([*story, end]).strip("\n")
            story = []
        story.append(rest)
    yield "".join(story).strip("\n")


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).strip("\n")
            paragraph = []
    yield "".join(paragraph).strip("\n")


def _json_lines(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, halves=True)  # other fields may hold what they will
        except ValueError as error:
            if number == 1 and line.strip() in ("[", "{"):  # of a file that is JSON as a whole
                raise StoriesError(f"{path} has records of several lines; {_A_LINE_EACH}") from None
            raise StoriesError(f"{path}, line {number}: not JSON ({error}); one object a line") from None
        if isinstance(record, list) and record and isinstance(record[0], dict):
            raise StoriesError(f"{path}, line {number}: a list of records; {_A_LINE_EACH}")
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            raise StoriesError(f"{path}, line {number}: no text in the field {field!r}; {_instead(record)}")
        try:
            record[field].encode("utf-8")
        except UnicodeEncodeError as error:
            half = ascii(record[field][error.start])
            raise StoriesError(f"{path}, line {number}: {half} is half a character; take it out") from None
        yield record[field]


def _instead(record: object) -> str:
    """What to do where a line of JSON has no text in the field that was asked for."""
    if not isinstance(record, dict):
        return 'write one object a line, such as {"text": "..."}'
    if texts := [name for name, value in record.items() if isinstance(value, str)]:
        return f"name one of {listed(texts)} by --field"
    return 'write each line as {"text": "..."}, for no field of it is text'


def _column(path: Path, field: str) -> Iterator[str]:
    """The texts of a column of a CSV or TSV file, whose first line names the columns (RFC 4180)."""
    csv.field_size_limit(_LONGEST_CELL)
    texts = lines(path)
    first = next(texts, "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows = csv.reader(itertools.chain([first], texts), delimiter=delimiter, strict=True)
    try:
        names = next(rows, [])
        if not names:  # an empty file
            return
        if names.count(field) > 1:
            raise StoriesError(f"{path} has {names.count(field)} columns named {field!r}; rename all but one")
        if field not in names:
            raise StoriesError(
                f"{path} has no column {field!r}; name one of its first line's by --field: {listed(names)}"
            )
        place = names.index(field)
        for row in rows:
            if row and len(row) != len(names):
                raise StoriesError(
                    f"{path}, line {rows.line_num}: {len(row)} cells where the first line names {len(names)} columns; "
                    f"write a text with {delimiter!r} in it between double quotes"
                )
            if row:
                yield row[place]
    except csv.Error as error:
        raise StoriesError(
            f"{path}, line {rows.line_num}: {error}; write a text with double quotes between such, and its own twice"
        ) from None


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as table:
            columns = table.schema_arrow
            found = columns.get_all_field_indices(field)
            if len(found) > 1:
                raise StoriesError(f"{path} has {len(found)} columns named {field!r}; rename all but one")
            kind = columns.field(found[0]).type if found else None
            if kind is None or not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
                raise StoriesError(
                    f"{path} has no text column {field!r}; name one of {listed(columns.names)} by --field"
                )
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if text is None:
                        raise StoriesError(f"{path}, row {row}: no text in the field {field!r}")
                    yield text
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise StoriesError(f"{path} is not a parquet file or is damaged ({reason})") from error
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error
