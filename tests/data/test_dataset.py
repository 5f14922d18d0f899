"""Datasets: built-in stories with their floor, files, TinyStories from a cache."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from mlxstories.data import source
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.notation import CHOICE, FIXED
from mlxstories.data.splits import fingerprint
from mlxstories.data.tokenizer import UNKNOWN, Tokenizer, words
from mlxstories.errors import StoriesError


@pytest.fixture(scope="module")
def built_in():
    return load_dataset(DataConfig(stories=300, validation=50, seed=3))


def test_built_in_stories_have_an_exact_floor(built_in):
    floor, val = built_in.floor, built_in.val
    walked = [source.walk(words(text)) for text in built_in.val_texts]
    assert floor.nats == pytest.approx(np.mean(np.concatenate([story.nats for story in walked])), rel=1e-6)
    assert floor.accuracy == pytest.approx(floor.best.mean(), rel=1e-6)
    for name in ("entropy", "best", "kind"):
        array = getattr(floor, name)
        assert len(array) == val.targets
        np.testing.assert_array_equal(array, np.concatenate([getattr(story, name) for story in walked]))
    shares = [floor.by_kind[name] for name in source.KINDS]
    assert sum(kind["share"] for kind in shares) == pytest.approx(1)
    assert sum(kind["share"] * kind["nats"] for kind in shares) == pytest.approx(floor.nats)
    assert sum(kind["share"] * kind["accuracy"] for kind in shares) == pytest.approx(floor.accuracy)
    assert floor.by_kind["recall"] == {**floor.by_kind["recall"], "nats": 0.0, "accuracy": 1.0}
    assert built_in.report["floor"] == {"nats": floor.nats, "accuracy": floor.accuracy}


def test_arrays_lie_beside_their_tokens(built_in):
    """The token of a validation target and the number of its word: checked through a count."""
    tokens = np.concatenate([[*story.tolist(), 0] for story in built_in.val])
    he = built_in.tokenizer.encode("He")[0]
    kinds = built_in.floor.kind[tokens == he]
    assert len(kinds) and (built_in.floor.kind[tokens == 0] == FIXED).all()
    assert set(tokens[built_in.floor.kind == CHOICE]) >= set(built_in.tokenizer.encode("Once Long In"))


def test_no_story_is_in_both_splits(built_in):
    assert len(built_in.train) == 300 and len(built_in.val) == 50
    marks = [{fingerprint(text) for text in texts} for texts in (built_in.train_texts, built_in.val_texts)]
    assert len(marks[0]) == 300 and len(marks[1]) == 50 and not marks[0] & marks[1]


def test_a_dataset_cannot_be_changed_by_mistake(built_in):
    with pytest.raises(dataclasses.FrozenInstanceError):
        built_in.train = built_in.val


def test_stories_that_resemble_each_other_are_shown_by_80_characters(tmp_path):
    text = " ".join(f"word{i}" for i in range(60))
    (tmp_path / "a.txt").write_text("\n\n".join([text, "Tom ran home.", text.replace("word59", "end")]))
    report = load_dataset(DataConfig(str(tmp_path / "a.txt"), validation=1, split="tail")).report
    (found,) = report["near_duplicates"]["examples"]
    assert (found["train"], found["validation"]) == (text[:80],) * 2


def test_validation_does_not_depend_on_the_number_of_training_stories(built_in):
    more = load_dataset(DataConfig(stories=310, validation=60, seed=3))
    assert more.val_texts[:50] == built_in.val_texts
    assert more.train_texts[:300] == built_in.train_texts
    assert more.fingerprint != built_in.fingerprint


def test_the_same_configuration_gives_the_same_data(built_in):
    again = load_dataset(DataConfig(stories=300, validation=50, seed=3))
    assert again.fingerprint == built_in.fingerprint
    np.testing.assert_array_equal(again.train.tokens, built_in.train.tokens)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_floors_below_the_word_level_share_out_the_same_nats(built_in, kind):
    data = load_dataset(DataConfig(stories=300, validation=50, seed=3, tokenizer=kind))
    assert data.val_texts == built_in.val_texts
    assert data.floor.accuracy is None and data.floor.by_kind == {} and data.floor.best is None
    total = built_in.floor.nats * built_in.val.targets
    assert data.floor.nats * data.val.targets == pytest.approx(total, rel=1e-6)
    assert [data.tokenizer.decode(story) for story in data.val] == data.val_texts


def test_few_stories_know_every_word():
    data = load_dataset(DataConfig(stories=4, validation=20))
    assert data.floor is not None and data.report["validation"]["unknown_rate"] == 0
    assert set(source.vocabulary()) <= {data.tokenizer.token(i) for i in range(data.tokenizer.vocab_size)}


def test_no_floor_with_unknown_words():
    data = load_dataset(DataConfig(stories=20, validation=20, vocab_size=100))
    assert data.floor is None and data.report["floor"] is None
    assert data.report["validation"]["unknown_rate"] > 0.1
    assert (data.val.tokens == UNKNOWN).mean() == pytest.approx(data.report["validation"]["unknown_rate"])


def test_a_given_tokenizer_is_kept(built_in):
    data = load_dataset(DataConfig(stories=10, validation=5), built_in.tokenizer)
    assert data.tokenizer is built_in.tokenizer and data.floor is not None
    data = load_dataset(DataConfig(stories=10, validation=5), Tokenizer.train("word", ["Tom"]))
    assert data.floor is None


@pytest.fixture
def corpus(tmp_path):
    stories = list(source.texts(40, 9))
    stories += [stories[3], stories[3].upper()]
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories))
    return path


def test_stories_that_are_all_the_same_are_no_one_story(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("Tom ran.\n\n" * 7)
    with pytest.raises(StoriesError, match=r"all 7 stories of .*stories\.txt are the same"):
        load_dataset(DataConfig(source=str(path)))


def test_files_are_split_by_story_without_duplicates(corpus):
    data = load_dataset(DataConfig(str(corpus)))
    assert len(data.train) == 36 and len(data.val) == 4 and data.floor is None
    assert data.report["duplicates_removed"] == 2
    assert not set(data.train_texts) & set(data.val_texts)
    assert data.report["near_duplicates"]["count"] == 0
    assert data.report["train"]["bytes"] == sum(len(text.encode()) for text in data.train_texts)
    assert data.report["train"]["tokens"] == len(data.train.tokens) + 36
    json.dumps(data.report)
    fewer = load_dataset(DataConfig(str(corpus), stories=10))
    assert fewer.train_texts == data.train_texts[:10] and fewer.val_texts == data.val_texts


def test_vocabulary_comes_from_the_training_stories_alone(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("\n\n".join(f"Word{i} ran home." for i in range(20)))
    data = load_dataset(DataConfig(str(path)))
    assert data.report["train"]["unknown_rate"] == 0
    assert data.report["validation"]["unknown_rate"] == pytest.approx(1 / 4)


def test_one_document_is_split_in_two_by_characters(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text("To be,\n\nor not to be. " * 50)
    config = DataConfig(str(path), separator="file", split="tail", tokenizer="char")
    data = load_dataset(config)
    assert data.train_texts[0] + data.val_texts[0] == path.read_text()
    assert len(data.train) == len(data.val) == 1
    assert len(data.train.tokens) == math.floor(0.9 * len(path.read_text()))


def test_tinystories_come_from_the_cache(tmp_path, monkeypatch):
    """A hub cache as huggingface_hub lays it out, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StoriesError, match="go online once, or name a local copy") as raised:
        load_dataset(DataConfig("tinystories"))
    assert "\n" not in str(raised.value)

    snapshot = tmp_path / "datasets--roneneldan--TinyStories" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    stories = list(source.texts(30, 1))
    mark = "\n<|endoftext|>\n"
    train, valid = mark.join([*stories[:20], stories[25], stories[2]]), mark.join(stories[20:])
    (snapshot / "TinyStoriesV2-GPT4-train.txt").write_text(train)
    (snapshot / "TinyStoriesV2-GPT4-valid.txt").write_text(valid)
    data = load_dataset(DataConfig("tinystories"))
    assert data.val_texts == stories[20:] and data.train_texts == stories[:20]
    assert data.report["duplicates_removed"] == 2
    fewer = load_dataset(DataConfig("tinystories", stories=5, validation=3))
    assert fewer.val_texts == stories[20:23] and fewer.train_texts == stories[:5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stories": 0}, "stories must be a whole number from 1 to 10,000,000; got 0"),
        ({"stories": -4}, "stories must be a whole number from 1 to 10,000,000; got -4"),
        ({"validation": 0}, "validation must be a whole number from 1 to 10,000,000; got 0"),
        ({"tokenizer": "words"}, "tokenizer must be one of word, char, bpe; got 'words'"),
        ({"split": "random"}, "split must be one of"),
        ({"separator": ","}, "separator must be one of"),
        ({"vocab_size": 3}, "vocab_size must be a whole number from 4 to 10,000,000; got 3"),
        ({"seed": 2**63}, "seed must be a whole number from 0 to 9,223,372,036,854,775,807"),
        ({"source": ()}, "no source of stories"),
        ({"source": ("stories", "x.txt")}, "cannot be mixed"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(StoriesError, match=message):
        DataConfig(**options)


def test_more_validation_than_stories_is_refused(corpus):
    with pytest.raises(StoriesError, match="1 to 39 of 40 distinct stories; got 40"):
        load_dataset(DataConfig(str(corpus), validation=40))
