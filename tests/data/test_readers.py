"""Readers: every format and separator, and one clear line for each kind of bad file."""

from __future__ import annotations

import json
import time

import pyarrow
import pyarrow.parquet
import pytest

from mlxstories.data.readers import MARK, read_documents
from mlxstories.errors import StoriesError

MARKED = "One.\nStill one.\n<|endoftext|>\nTwo.\n\nStill two.\n<|endoftext|>\n"
BLANK = "One.\nStill one.\n\n \nTwo.\n"


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(*paths, **options):
    return list(read_documents(paths, **options))


@pytest.mark.parametrize(
    ("content", "separator", "stories"),
    [
        (MARKED, "auto", ["One.\nStill one.", "Two.\n\nStill two."]),
        (MARKED, "endoftext", ["One.\nStill one.", "Two.\n\nStill two."]),
        (MARKED + "Three.", "auto", ["One.\nStill one.", "Two.\n\nStill two.", "Three."]),
        ("One.<|endoftext|>Two.", "auto", ["One.", "Two."]),
        (BLANK, "auto", ["One.\nStill one.", "Two."]),
        (BLANK, "blank-line", ["One.\nStill one.", "Two."]),
        (BLANK, "line", ["One.", "Still one.", "Two."]),
        (BLANK, "file", [BLANK.strip("\n")]),
        (BLANK, "endoftext", [BLANK.strip("\n")]),
        ("\ufeffOne.\r\nStill one.\r\n\r\nTwo.\r\n", "auto", ["One.\nStill one.", "Two."]),
        ("One.\rStill one.\r\rTwo.\r", "auto", ["One.\nStill one.", "Two."]),
        ("One.\r\rTwo.\rThree.", "line", ["One.", "Two.", "Three."]),
        (MARKED, "file", [MARKED.strip("\n")]),
    ],
)
def test_text_is_split_at_the_separator(file, content, separator, stories):
    assert read(file("stories.txt", content), separator=separator) == stories


def test_several_text_files_are_a_story_each(file, tmp_path):
    file("b.txt", BLANK)
    file("a.md", "Alpha.\n\nBeta.")
    file("notes.bin", b"\0\1")  # not a supported kind: left alone in a directory
    file(".hidden.txt", "Hidden.")
    assert read(tmp_path) == ["Alpha.\n\nBeta.", BLANK.strip("\n")]
    assert read(tmp_path, separator="blank-line") == ["Alpha.", "Beta.", "One.\nStill one.", "Two."]


def test_any_other_suffix_is_text(file):
    assert read(file("stories.log", "One.\n\nTwo.")) == ["One.", "Two."]


def test_json_lines(file):
    other = "\ud800"  # half a character is nobody's affair in a field that is not read
    lines = "\n".join(json.dumps({"story": text, "n": other}) for text in ("One.\n\nTwo", "<|endoftext|>"))
    assert read(file("a.jsonl", lines + "\n\n"), field="story") == ["One.\n\nTwo", "<|endoftext|>"]


def test_old_newlines_in_any_encoding(file):
    assert read(file("a.txt", "One.\rStill.\r\rTwo.".encode("utf-16"))) == ["One.\nStill.", "Two."]


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("a.csv", 'id,text\n1,One.\n2,"Two, ""he"" said.\n\nStill two."\n\n3,\n', "text"),
        ("a.csv", '\ufeffid;story\r\n1;One.\r\n2;"Two, ""he"" said.\r\n\r\nStill two."\r\n', "story"),
        ("a.tsv", 'story\tn, m\nOne.\t1\n"Two, ""he"" said.\n\nStill two."\t2', "story"),
        ("a.CSV", 'text\rOne.\r"Two, ""he"" said.\r\rStill two."\r', "text"),
    ],
)
def test_a_column_of_a_table_as_text(file, name, content, field):
    assert read(file(name, content), field=field) == ["One.", 'Two, "he" said.\n\nStill two.']


def test_a_cell_may_be_a_book(file):
    book = "Tom ran. " * 20_000
    assert read(file("a.csv", f"text\n{book}\n")) == [book]


def test_the_text_column_of_parquet_is_read(tmp_path):
    table = pyarrow.table({"text": ["One.", "Two.", "Three."], "n": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert read(tmp_path / "a.parquet") == ["One.", "Two.", "Three."]
    with pytest.raises(StoriesError, match="no text column 'n'; name one of text, n by --field"):
        read(tmp_path / "a.parquet", field="n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["One.", None]}), tmp_path / "b.parquet")
    with pytest.raises(StoriesError, match="row 2: no text"):
        read(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "contains no text"),
        ("a.txt", b" \n\n\t\n", "contains no text"),
        ("a.txt", b"<|endoftext|>\n<|endoftext|>\n", "contains no text"),
        ("a.jsonl", b"\n", "contains no text"),
        ("a.txt", b"One\nTw\0o", r"binary \(a zero byte at byte 6\)"),
        ("a.txt", "One.\nCaf\u00e9".encode("latin-1"), r"not UTF-8 \(at byte 8\)"),
        ("a.jsonl", b'{"text": "One."}\n{"other": 1}\n', "line 2: no text in the field 'text'"),
        ("a.jsonl", b'{"id": "7", "n": 1, "story": "One."}\n', "'text'; name one of id, story by --field"),
        ("a.jsonl", b'{"text": 1}\n', "line 1: no text in the field 'text'; write each line as"),
        ("a.txt.gz", b"\x1f\x8b\x08", "unpack it"),
        ("a.jsonl", b'["One."]\n', "line 1: no text in the field 'text'; write one object a line"),
        ("a.jsonl", b'{"text": "One."}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "Tom \\ud800."}\n', r"line 1: '\\ud800' is half a character"),
        (
            "a.json",
            b'[\n {"text": "One."}\n]\n',
            r"records of several lines; write one a line, as jq -c '\.\[\]'",
        ),
        ("a.json", b'{\n "text": "One."\n}\n', "records of several lines"),
        ("a.json", b'[{"text": "One."}, {"text": "Two."}]', "line 1: a list of records; write one a line"),
        ("a.rtf", b"{\\rtf1 One.}", "no plain text; save it as .txt"),
        ("a.csv", b"", "contains no text"),
        ("a.csv", b"text\n\n", "contains no text"),
        (
            "a.csv",
            b"title,story\nA,One.\n",
            "no column 'text'; name one of its first line's by --field: title, story",
        ),
        ("a.csv", b"text,text\nA,One.\n", "2 columns named 'text'; rename"),
        (
            "a.csv",
            b"id,text\n1,One.\n2,Two, and three.\n",
            "line 3: 3 cells where the first line names 2 columns",
        ),
        (
            "a.tsv",
            b'text\tid\n"One.\t1\nTwo.\t2\n',
            "line 3: unexpected end of data; write a text with double quotes",
        ),
        ("a.parquet", b"PAR1 but not really", "not a parquet file or is damaged"),
    ],
)
def test_bad_files_are_refused_by_name(file, name, content, message):
    path = file(name, content)
    with pytest.raises(StoriesError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_missing_is_refused_by_name(tmp_path):
    with pytest.raises(StoriesError, match="does not exist"):
        read(tmp_path / "missing.txt")
    with pytest.raises(StoriesError, match=r"^a\.txt lies on the web; download it"):
        read("https://example.com/a.txt")
    with pytest.raises(StoriesError, match=r"holds no \.txt"):
        read(tmp_path)
    with pytest.raises(StoriesError, match="no files were named"):
        read()
    with pytest.raises(StoriesError, match="separator must be one of"):
        read(tmp_path, separator="comma")


def test_stories_are_given_out_before_the_file_ends(file):
    path = file("a.txt", b"One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n\xff")
    documents = read_documents([path])
    assert [next(documents), next(documents)] == ["One.", "Two."]
    with pytest.raises(StoriesError, match="not UTF-8"):
        next(documents)


def test_odd_tables(tmp_path):
    path = tmp_path / "a.parquet"
    twice = pyarrow.table([pyarrow.array(["One."]), pyarrow.array(["Two."])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, path)
    with pytest.raises(StoriesError, match="2 columns named 'text'"):
        read(path)
    pyarrow.parquet.write_table(pyarrow.table({f"column {i}": [i] for i in range(300)}), path)
    with pytest.raises(StoriesError, match="column 19 and 280 more by --field"):
        read(path)


def test_many_stories_on_one_line_take_time_by_their_number(file):
    path = file("a.txt", MARK.join(f"Tom saw {i} birds." for i in range(100_000)))
    began = time.process_time()
    assert len(read(path)) == 100_000
    assert time.process_time() - began < 5  # by the square: minutes


def test_a_large_binary_file_is_refused_at_its_first_zero(tmp_path):
    path = tmp_path / "a.txt"
    with open(path, "wb") as sparse:
        sparse.write(b"x" * 100)
        sparse.truncate(1 << 40)
    with pytest.raises(StoriesError, match=r"a zero byte at byte 100\)"):
        read(path)
