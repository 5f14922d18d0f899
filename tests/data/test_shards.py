"""Prepared directories: the same stories as in memory, whole or refused, and a killed preparation goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mlxstories.data import shards, source, tokenizer
from mlxstories.data.config import DataConfig
from mlxstories.data.dataset import load_dataset
from mlxstories.data.packing import Documents
from mlxstories.data.prepare import prepare
from mlxstories.data.shards import MappedTokens
from mlxstories.errors import StoriesError
from mlxstories.storage import files
from mlxstories.training.config import TrainingConfig
from mlxstories.training.stream import Stream


def content(path):
    """The bytes of every file but the lock."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Shards end where chunks do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_CHUNK", 10)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    stories = list(source.texts(120, 9))
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join([*stories, stories[3], stories[5].upper()]))
    return path


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(DataConfig(str(corpus)), path, shard_tokens=1500)
    return path


@pytest.fixture
def copy(prepared, tmp_path):
    path = tmp_path / "copy"
    path.mkdir()
    for name, data in content(prepared).items():
        (path / name).write_bytes(data)
    return path


def test_built_in_stories_are_the_same_prepared_and_in_memory(tmp_path):
    config = DataConfig(stories=150, validation=30, seed=3)
    prepare(config, tmp_path / "shards", shard_tokens=4000)
    memory, mapped = load_dataset(config), load_dataset(DataConfig(str(tmp_path / "shards")))
    assert len(list((tmp_path / "shards").glob("train-*.tokens"))) > 2
    assert mapped.tokenizer.backend.to_str() == memory.tokenizer.backend.to_str()
    for part in ("train", "val"):
        expected, got = getattr(memory, part), getattr(mapped, part)
        np.testing.assert_array_equal(got.tokens[:], expected.tokens)
        np.testing.assert_array_equal(got.offsets, expected.offsets)
    assert mapped.floor.nats == memory.floor.nats and mapped.floor.by_kind == memory.floor.by_kind
    differing = {key for key in memory.report if memory.report[key] != mapped.report[key]}
    assert differing == {"source"}
    config = TrainingConfig(batch_size=4)
    a, b = (Stream(data.train, 64, config) for data in (memory, mapped))
    for _ in range(a.length + 5):
        for x, y in zip(next(a), next(b), strict=True):
            np.testing.assert_array_equal(np.array(x), np.array(y))


def test_files_are_prepared_without_duplicates_or_leaks(corpus, prepared):
    data = load_dataset(DataConfig(str(prepared)))
    assert len(data.train) == 108 and len(data.val) == 12
    assert data.report["duplicates_removed"] == 2 and data.report["near_duplicates"]["count"] == 0
    assert not set(data.train_texts) & set(data.val_texts)
    told = {data.tokenizer.normalise(text) for text in source.texts(120, 9)}
    assert set(data.train_texts) < told  # held-out ones may have words unknown to the vocabulary
    assert data.report["train"]["unknown_rate"] == 0 < data.report["validation"]["unknown_rate"]
    assert shards.verify(prepared).train.targets == data.train.targets
    assert data.report["train"]["bytes"] + data.report["validation"]["bytes"] == sum(
        len(text.encode()) for text in source.texts(120, 9)
    )


def test_a_prepared_directory_is_named_by_its_content(corpus, prepared, tmp_path):
    before = content(prepared)
    prepare(DataConfig(str(corpus)), prepared, shard_tokens=1500)
    assert content(prepared) == before  # nothing to do
    moved = tmp_path / "moved.txt"
    moved.write_bytes(corpus.read_bytes())
    prepare(DataConfig(str(moved)), prepared)
    moved.write_bytes(corpus.read_bytes() + b" More.")
    for config in (DataConfig(str(moved)), DataConfig(str(corpus), tokenizer="char")):
        with pytest.raises(StoriesError, match="holds other stories"):
            prepare(config, prepared)
    assert content(prepared) == before


_KILLED = """
import sys, time
from mlxstories.data import prepare, tokenizer
from mlxstories.data.config import DataConfig
tokenizer._CHUNK = 10
noted = prepare._noted
def slow(*args):
    journal = noted(*args)
    time.sleep(0.3)
    return journal
prepare._noted = slow  # so that a kill after a shard finds it at work
prepare.prepare(DataConfig(sys.argv[1]), prepare.Path(sys.argv[2]), shard_tokens=1500)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_preparation_goes_on_where_it_was(corpus, prepared, tmp_path, number):
    path = tmp_path / "shards"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, corpus, path], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(path.glob("train-*.tokens"))) < 2:
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(timeout=60)
    assert not (path / "shards.json").exists()
    early = {file: file.stat().st_mtime_ns for file in path.glob("train-*.tokens")}
    with pytest.raises(StoriesError, match="not fully prepared: run the same"):
        load_dataset(DataConfig(str(path)))
    with pytest.raises(StoriesError, match="holds other stories"):
        prepare(DataConfig(str(corpus), seed=1), path)

    prepare(DataConfig(str(corpus)), path, shard_tokens=1500)
    assert content(path) == content(prepared)
    journaled = [file for file, modified in early.items() if file.stat().st_mtime_ns == modified]
    assert len(journaled) >= 1  # not tokenised again


def test_a_survey_cut_short_is_made_again_whatever_is_asked_for_next(corpus, prepared, tmp_path, monkeypatch):
    path = tmp_path / "shards"
    written = []

    def write_json(*args):
        if written:
            raise KeyboardInterrupt
        written.append(files.write_json(*args))

    monkeypatch.setattr("mlxstories.data.prepare.write_json", write_json)
    with pytest.raises(KeyboardInterrupt):
        prepare(DataConfig(str(corpus), seed=1), path, shard_tokens=1500)
    monkeypatch.undo()
    assert (path / "tokenizer.json").is_file() and len(list(path.glob("validation-*"))) == 2
    with pytest.raises(StoriesError, match="not fully prepared"):
        load_dataset(DataConfig(str(path)))
    prepare(DataConfig(str(corpus)), path, shard_tokens=1500)
    assert content(path) == content(prepared)


def test_stories_without_a_token_are_left_out_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": f"Word{i} ran."}) + "\n" for i in range(20))
    )
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write('{"text": "___"}\n')  # not blank, and yet no word
    index = prepare(DataConfig(str(tmp_path / "a.jsonl"), tokenizer="bpe", vocab_size=300), tmp_path / "bpe")
    assert index.empty_removed == 0
    index = prepare(DataConfig(str(tmp_path / "a.jsonl"), seed=2), tmp_path / "word")
    data = load_dataset(DataConfig(str(tmp_path / "word")))
    assert index.empty_removed == 1 and len(data.train) + len(data.val) == 20
    assert data.train.lengths.min() > 0


def test_stories_without_a_token_are_counted_behind_the_last_shard_too(tmp_path):
    """Ten stories to a chunk, and each chunk with a token ends its shard."""
    texts = [f"Word{i} ran." for i in range(20)] + ["_" * i for i in range(1, 11)] + ["Tom ran.", "Mia sat."]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = DataConfig(str(tmp_path / "a.jsonl"), split="tail", validation=2)
    index = prepare(config, tmp_path / "new", shard_tokens=1)
    assert [shard.stories for shard in index.train] == [10, 10] and index.empty_removed == 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "shards.json").write_text("{"), "cannot be read as JSON"),
        (lambda path: (path / "shards.json").write_text("[1]"), "not an index of prepared stories"),
        (lambda path: edit(path, lambda index: index["config"].update(seed=9)), "SHA-256 differs"),
        (lambda path: edit(path, lambda index: index.update(x="\ud800")), "is half a character"),
        (lambda path: edit(path, lambda index: index.update(format="2")), "not an index"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged"),
        (lambda path: (path / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda path: first(path, "lengths").write_bytes(b"1234"), "lengths is damaged"),
        (lambda path: first(path, "tokens").unlink(), "is missing or damaged: not"),
        (lambda path: first(path, "tokens").write_bytes(b"12"), "is missing or damaged: not"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(copy, damage, message):
    damage(copy)
    with pytest.raises(StoriesError, match=message) as raised:
        load_dataset(DataConfig(str(copy)))
    assert "\n" not in str(raised.value) and str(copy) in str(raised.value)


def edit(path, change):
    index = json.loads((path / "shards.json").read_text())
    change(index)
    (path / "shards.json").write_text(json.dumps(index))


def first(path, suffix):
    return min(path.glob(f"train-*.{suffix}"))


def test_verify_reads_every_token(copy):
    tokens = bytearray(first(copy, "tokens").read_bytes())
    tokens[7] ^= 4
    first(copy, "tokens").write_bytes(tokens)
    load_dataset(DataConfig(str(copy)))  # the sizes are right
    with pytest.raises(StoriesError, match="tokens is damaged"):
        shards.verify(copy)


def test_an_index_reaches_no_file_outside_its_directory(prepared, copy):
    index = shards.Index.read(copy)
    away = replace(index, train=(replace(index.train[0], name="../prepared/x"),))
    away.write(copy)
    with pytest.raises(StoriesError, match="names a file outside"):
        shards.load(copy)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer": "char"}, "prepared with tokenizer word, not char"),
        ({"stories": 5}, "prepared with stories None, not 5"),
    ],
)
def test_what_contradicts_the_index_is_refused(prepared, config, message):
    with pytest.raises(StoriesError, match=message):
        load_dataset(DataConfig(str(prepared), **config))


def test_a_prepared_directory_stands_alone(corpus, prepared, tmp_path):
    with pytest.raises(StoriesError, match="name it alone"):
        load_dataset(DataConfig((str(prepared), str(corpus))))
    with pytest.raises(StoriesError, match="is prepared already"):
        prepare(DataConfig(str(prepared)), tmp_path / "again")
    (tmp_path / "notes.txt").write_text("Mine.")
    with pytest.raises(StoriesError, match="holds something else"):
        prepare(DataConfig(str(corpus)), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "Mine."
    with pytest.raises(StoriesError, match="is a file"):
        prepare(DataConfig(str(corpus)), tmp_path / "notes.txt")


def test_mapped_tokens_read_like_an_array(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 999, n).astype("<u2") for n in (5, 1, 30)]
    for number, part in enumerate(parts):
        part.tofile(tmp_path / str(number))
    array = np.concatenate(parts)
    tokens = MappedTokens([tmp_path / str(i) for i in range(3)], [5, 1, 30], "uint16")
    for _ in range(2):
        assert len(tokens) == 36 and tokens.dtype == np.uint16
        places = rng.integers(0, 36, 50)
        np.testing.assert_array_equal(tokens[places], array[places])
        for part in (slice(None), slice(3, 9), slice(6, 6), slice(-4, None)):
            np.testing.assert_array_equal(tokens[part], array[part])
        tokens.release()
    stories = Documents(tokens, np.array([0, 2, 6, 36]))
    np.testing.assert_array_equal(stories[1], array[2:6])
    assert stories.targets == 39
