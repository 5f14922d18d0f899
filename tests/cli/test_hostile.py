"""Hostile and odd inputs, thought up from the documentation: taken, or refused in one line that names them."""

from __future__ import annotations

import json
import os
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from mlxstories.cli import main

SMALL = "--size debug --stories 20 --validation 5 --steps 1 --no-check"
TRAIN, FILE = f"train {SMALL}", "train --size debug --validation 2 --steps 1 --no-check --data"
DEEP, DIGITS, LONG = "[" * 100_000, "9" * 5000, "x" * 5000

# Words of the command, and a word of the line that refuses it.
OPTIONS = [
    (f"{TRAIN} --batch-size {2**63 - 1}", "batch"),
    (f"{TRAIN} --steps 1{'0' * 400}", "steps"),
    (f"{TRAIN} --layers 10000000", "layers"),
    (f"{TRAIN} --lr nan", "--lr must be a number above 0"),
    (f"{TRAIN} --dropout 1e400", "dropout"),
    (f"{TRAIN} --set optimizer.learning_rate={DIGITS}", "learning_rate"),
    (f"{TRAIN} --set name={'[' * 50_000}", "name"),
    (f"{TRAIN} --set optimizer.betas=[NaN,2]", "betas"),
    (f"{TRAIN} --name ../x", "../x"),
    (f"{TRAIN} --name {LONG}", "xxx"),
    (f"{TRAIN} --arch mlx-lm:../x", "../x"),
    (f"{TRAIN} --runs /dev/null", "/dev/null"),
    ("train --resume=", "empty"),
    ("sample --num 0 run", "--num"),
    ("sample --temperature nan run", "temperature"),
    ("sample --top-p 0 run", "--top-p must be in (0, 1]"),
    ("debug --timeout nan", "--timeout"),
    ("debug --break \x1b[31m", r"\x1b[31m"),
    (f"debug {LONG}", "xxx"),
    (f"import {LONG}", "xxx"),
    ("import exported --name ..", ".."),
    ("compare --arms no-such", "no-such"),
    ("compare --scale 0", "--scale"),
    ("watch run --port 99999", "--port"),
    ("data show --stories -1", "--stories"),
]

# Content of a file, its name, the command on it, and a word of the line; None where it is taken.
FILES = [
    ("", "a.txt", "data show --data a.txt", "a.txt"),
    (b"\0" * 1000, "a.txt", "data show --data a.txt", "a.txt"),
    (b"\x80\x04caf\xe9\n\nb", "a.txt", f"{FILE} a.txt", "a.txt"),
    ("Tom.\n\n" * 1000, "a.txt", f"{FILE} a.txt", "all 1,000 stories of a.txt are the same"),
    ("<|endoftext|>" * 1000, "a.txt", f"{FILE} a.txt", "a.txt"),
    ("".join(f"\x1b[3{i}m red\x07\n\n" for i in range(9)), "a.txt", "data show --data a.txt", None),
    ('{"text":' + DEEP, "a.jsonl", "data show --data a.jsonl", "a.jsonl"),
    ('{"\\u001b[31m\\n":1}\n', "a.jsonl", "data show --data a.jsonl", "text"),
    (json.dumps({f"k{i}": 1 for i in range(5000)}), "a.jsonl", "data show --data a.jsonl", "line 1"),
    (DEEP, "a.json", "compare --arms a.json", "a.json"),
    ('{"a": {"phase": 1' + DIGITS + "}}", "a.json", "compare --arms a.json", "a.json"),
    ('{"\\u001b[31m": {}, "b": {}}', "a.json", "compare --arms a.json", "can be printed"),
    ("a = " + "[" * 20_000, "a.toml", "compare --arms a.toml", "a.toml"),
    (b"PAR1" + b"\xff" * 50 + b"PAR1", "a.parquet", "data show --data a.parquet", "a.parquet"),
    ("x=" + "(" * 5000, "a.py", "debug a.py:subject", "a.py"),
    ("\0", "a.py", "debug a.py:subject", "a.py"),
    ("class B(BaseException): pass\ndef subject(): raise B", "a.py", "debug a.py", "raised B"),
    ("raise GeneratorExit\ndef subject(): pass", "a.py", "debug a.py", "GeneratorExit"),
    (
        "class B(Exception):\n    def __str__(self): return 1\ndef subject(): raise B",
        "a.py",
        "debug a.py",
        "no message that can be shown",
    ),
]

# What lies in the place of a file that each of the commands reads.
PLACES = {
    "fifo": os.mkfifo,
    "loop": lambda path: os.symlink(path, path),
    "dangling": lambda path: os.symlink("nowhere", path),
    "endless": lambda path: os.symlink("/dev/zero", path),
    "folder": os.mkdir,
}
READERS = [
    "data show --data a.txt",
    "data prepare a.txt --to new",
    f"{FILE} a.txt",
    "compare --arms a.txt",
    "debug a.txt",
    "import a.txt",
    "train --resume a.txt",
    "data verify a.txt",
]

# A file of a run, what it holds instead, the command, and a word of the line; None where it is taken.
RUNS = [
    ("config.json", DEEP, "sample run", "config.json"),
    ("config.json", "NaN", "report run", "config.json"),
    ("metrics.jsonl", "", "report run", None),
    ("metrics.jsonl", DEEP, "report run", None),
    ("metrics.jsonl", "[1, 2]\n", "plot run", "metrics.jsonl"),
    ("tokenizer.json", "{}", "sample run", "tokenizer.json"),
    ("tokenizer.json", b"\xff\xfe", "export run --to new", "tokenizer.json"),
    ("result.json", DEEP, "report run", "result.json"),
]


def call(words: str, code: int):
    """The command's line of error, or what it printed."""
    result = CliRunner().invoke(main, words.split(" "))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    if code == 0:
        return result.output
    lines = result.stderr.splitlines()
    (line,) = [line for line in lines if line.startswith("Error: ")]
    assert line == lines[-1] and len(line) < 1100 and line.isprintable()
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    call(f"{TRAIN} --runs {folder / 'runs'} --name run", 0)
    return folder / "runs"


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    """All names under a folder, but for locks and what Python keeps of a module."""
    return {path for path in folder.rglob("*") if path.name != ".lock" and "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    ("words", "told"), OPTIONS, ids=lambda value: value[-30:].encode("unicode_escape").decode()
)
def test_hostile_options_are_one_line_and_change_nothing(here, words, told):
    before = files(here)
    assert told in call(words, 2)
    assert files(here) == before


def test_a_refused_name_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "too long" in call(f"{TRAIN} --name {'x' * 201}", 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("content", "name", "words", "told"), FILES, ids=range(len(FILES)))
def test_hostile_files_are_one_line_and_change_nothing(here, content, name, words, told):
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files(here)
    line = call(words, 0 if told is None else 2)
    assert told is None or told in line
    assert files(here) == before


def test_a_table_with_two_columns_of_one_name(here):
    table = pyarrow.table([pyarrow.array(["One.", "Two."])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, "a.parquet")
    assert "a.parquet" in call("data show --data a.parquet", 2)


@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_read_are_named(here, place):
    PLACES[place]("a.txt")
    before = files(here)
    for words in READERS:
        assert "a.txt" in call(words, 2)
    assert files(here) == before


@pytest.mark.parametrize(("name", "content", "words", "told"), RUNS, ids=range(len(RUNS)))
def test_hostile_files_of_a_run_are_one_line(here, name, content, words, told):
    path = here / "runs" / "run" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files(here)
    line = call(words, 0 if told is None else 2)
    assert told is None or told in line
    assert told is None or files(here) == before


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("", "sample run"),
        ("", "train --resume run"),
        ("config.json", "report run"),
        ("metrics.jsonl", "plot run"),
        ("tokenizer.json", "sample run"),
        ("checkpoints", "sample run"),
        ("checkpoints", "train --resume run"),
    ],
)
def test_what_may_not_be_read_is_not_called_missing_or_damaged(here, place, words):
    path = here / "runs" / "run" / place
    (here / "runs" / "run" / "result.json").unlink()
    mode = path.stat().st_mode
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read anything")
    line = call(words, 2)
    path.chmod(mode)
    assert "cannot read" in line and path.name in line and "ermission denied" in line


@pytest.mark.long
@pytest.mark.parametrize("name", ["$\\frac{x$", "<b onclick=alert(1)>", "_x"])
def test_a_name_stays_text_in_figures_and_reports(here, name):
    (here / "runs" / "run").rename(here / "runs" / name)
    config = here / "runs" / name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"name": name}))
    for command in (["plot", "--format", "svg", name], ["report", name, "--to", "page.html"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    assert "<b onclick" not in (here / "page.html").read_text()
