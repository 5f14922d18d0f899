"""The survey: repetitions found in bounded memory, the split sound whatever the order of the stories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxstories.data import survey as survey_module
from mlxstories.data.config import DataConfig
from mlxstories.data.dataset import load_dataset
from mlxstories.data.splits import fingerprint
from mlxstories.data.survey import LEFT_OUT, TRAIN, VALIDATION, Known, Survey, identity, read
from mlxstories.errors import StoriesError


@given(st.lists(st.lists(st.integers(0, 40) | st.sampled_from([2**64 - 1, 2**63]), max_size=30), max_size=12))
def test_known_is_a_set(batches):
    known, seen = Known(), set()
    for batch in batches:
        new = known.add(np.array(batch, dtype=np.uint64))
        expected = []
        for number in batch:
            expected.append(number not in seen)
            seen.add(number)
        assert new.tolist() == expected


def test_known_takes_8_bytes_a_number_in_few_runs():
    known = Known()
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert known.add(rng.integers(0, 2**63, 100).astype(np.uint64)).all()
    assert sum(run.nbytes for run in known._runs) == 300 * 100 * 8
    assert len(known._runs) < 10


def surveyed(path, **options):
    config = DataConfig(str(path), **options)
    survey = Survey(config)
    return survey, list(survey.training_texts()), [text for _, text in read(config)]


@given(
    stories=st.lists(st.sampled_from([f"Story {i} ran home." for i in range(30)]), min_size=4, max_size=60),
    validation=st.none() | st.integers(1, 3),
    split=st.sampled_from(["seeded", "tail"]),
)
@settings(max_examples=60)
def test_parts_say_what_became_of_each_story(tmp_path_factory, stories, validation, split):
    path = tmp_path_factory.mktemp("corpus") / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories))
    distinct = list(dict.fromkeys(stories))
    if split == "tail":
        validation = validation or 1
    if len(distinct) <= (validation or 1):
        return
    survey, train, told = surveyed(path, validation=validation, split=split)
    assert told == stories and len(survey.parts) == len(stories)
    by_part = [
        [text for text, p in zip(stories, survey.parts, strict=True) if p == part] for part in range(3)
    ]
    assert sorted(by_part[TRAIN]) == sorted(train)
    assert by_part[VALIDATION] == survey.held_out
    assert sorted(train + survey.held_out) == sorted(distinct)
    assert len(by_part[LEFT_OUT]) == len(stories) - len(distinct)
    assert len(survey.held_out) == (validation or max(1, len(distinct) // 10))
    if split == "tail":
        assert survey.held_out == distinct[-validation:]


def test_the_held_out_stories_depend_on_the_seed_and_not_on_the_order(tmp_path):
    stories = [f"Story {i} ran home." for i in range(200)]
    held_out = []
    for number, told in enumerate((stories, stories[::-1], [*stories, *stories])):
        path = tmp_path / f"{number}.txt"
        path.write_text("\n\n".join(told))
        held_out.append(set(surveyed(path)[0].held_out))
    assert held_out[0] == held_out[1] == held_out[2] and len(held_out[0]) == 20
    assert set(surveyed(path, seed=1)[0].held_out) != held_out[0]
    numbers = [stories.index(story) for story in held_out[0]]
    assert min(numbers) < 60 and max(numbers) > 140  # from everywhere


def test_a_number_of_stories_ends_the_reading(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("\n\n".join(f"Story {i // 2} ran home." for i in range(400)))
    survey, train, _ = surveyed(path, stories=50, validation=7)
    assert len(train) == 50 and len(survey.held_out) == 7 and len(survey.parts) == 2 * 57 - 1


def test_built_in_stories_are_those_of_a_loaded_dataset():
    config = DataConfig(stories=60, validation=20, seed=3)
    survey = Survey(config)
    dataset = load_dataset(config)
    assert list(survey.training_texts()) == dataset.train_texts and survey.held_out == dataset.val_texts
    assert not {fingerprint(text) for text in dataset.train_texts} & set(map(fingerprint, survey.held_out))


def test_tinystories_keep_their_own_split(tmp_path, monkeypatch):
    stories = [f"Story {i} ran home." for i in range(30)]
    files = {"train": [*stories[:20], stories[25], stories[2]], "validation": [*stories[20:], stories[20]]}
    for part, texts in files.items():
        (tmp_path / part).write_text("\n<|endoftext|>\n".join(texts))
    monkeypatch.setattr("mlxstories.data.survey.download", lambda part: tmp_path / part)
    for options, train, held_out in (
        ({}, stories[:20], stories[20:]),
        ({"stories": 5, "validation": 3}, stories[:5], stories[20:23]),
    ):
        survey = Survey(DataConfig("tinystories", **options))
        assert list(survey.training_texts()) == train and survey.held_out == held_out
    monkeypatch.setitem(survey_module.DEFAULT_STORIES, "tinystories", 7)
    assert list(Survey(DataConfig("tinystories")).training_texts()) == stories[:7]


def test_identity_is_that_of_content_and_settings(tmp_path):
    for name, text in (("a.txt", "One."), ("b.txt", "One."), ("c.txt", "Two."), ("d.jsonl", "One.")):
        (tmp_path / name).write_text(text)

    def mark(name, **options):
        return identity(DataConfig(str(tmp_path / name), **options))

    assert mark("a.txt") == mark("b.txt")
    others = [mark("a.txt"), mark("c.txt"), mark("d.jsonl"), mark("a.txt", tokenizer="char")]
    others += [mark("a.txt", vocab_size=99), mark("a.txt", seed=1), identity(DataConfig())]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("One story.", {}, "all of it is one story"),
        ("One.\n\nTwo.", {"validation": 2}, "1 to 1 of 2 distinct stories; got 2"),
        ("One.\n\nTwo.", {"split": "tail"}, "--validation N"),
    ],
)
def test_what_cannot_be_split(tmp_path, text, options, message):
    (tmp_path / "stories.txt").write_text(text)
    with pytest.raises(StoriesError, match=message):
        surveyed(tmp_path / "stories.txt", **options)
