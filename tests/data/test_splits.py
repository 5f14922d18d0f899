"""Splits: nothing shared, nothing lost, duplicates found."""

from __future__ import annotations

import time
import tracemalloc
import zlib

import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from mlxstories.data import source, splits, tokenizer
from mlxstories.data.splits import distinct, fingerprint, near_duplicates, split
from mlxstories.errors import StoriesError


@given(
    st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.none() | st.integers(1, n - 1))),
    st.sampled_from(["seeded", "tail"]),
    st.integers(0, 5),
)
def test_a_split_shares_and_loses_nothing(numbers, method, seed):
    total, validation = numbers
    texts = [f"story {i}" for i in range(total)]
    train, val = split(texts, method=method, validation=validation, seed=seed)
    assert sorted(train + val) == sorted(texts)
    assert len(val) == (validation or max(1, total // 10))
    assert split(texts, method=method, validation=validation, seed=seed) == (train, val)
    if method == "tail":
        assert train + val == texts


def test_seeds_differ_and_many_stories_need_few_held_out():
    texts = [str(i) for i in range(10_000)]
    _, val = split(texts)
    assert len(val) == 500
    assert split(texts, seed=1)[1] != val
    assert len(split(texts, method="tail")[1]) == 1000


def test_one_story_is_cut_in_two_at_nine_tenths():
    text = "0123456789" * 10
    assert split([text], method="tail") == ([text[:90]], [text[90:]])


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a", "b"], {"validation": 2}, "1 to 1 of 2 distinct stories; got 2"),
        (["a", "b"], {"validation": 0}, "got 0"),
        (["a", "b"], {"validation": -3}, "got -3"),
        (["a", "b"], {"method": "random"}, "one of seeded, tail; got 'random'"),
        (["a b"], {}, r"--separator.*--split tail"),
        (["a b"], {"method": "tail", "validation": 1}, "leave out --validation"),
        (["a"], {"method": "tail"}, "too short"),
        ([], {}, "1 to -1 of 0"),
    ],
)
def test_bad_splits_are_refused(texts, options, message):
    with pytest.raises(StoriesError, match=message):
        split(texts, **options)


def test_duplicates_differ_in_case_and_spacing_at_most():
    texts = ["One day,\nTom ran.", "one day, Tom  ran.", "One day, Tim ran.", "caf\u00e9", "cafe\u0301"]
    seen = set()
    assert list(distinct(texts, seen)) == [texts[0], texts[2], texts[3]]
    assert list(distinct(texts, seen)) == []


def test_near_duplicates_are_found_with_their_originals():
    train, val = list(source.texts(60, 1)), list(source.texts(20, 2))
    val[7] = train[41].replace("a", "a", 1) + " The end."
    found = near_duplicates(train, val)
    assert found.count == 1 and found.compared == found.total == (60, 20)
    ((mine, original, similarity),) = found.examples
    assert (mine, original) == (7, 41) and similarity > 0.8
    assert near_duplicates(train, val[:5]).count == 0


def test_stories_of_three_words_are_compared_too():
    assert near_duplicates(["The cat sat."], ["A dog ran."]).count == 0
    assert near_duplicates(["The cat sat."], ["the cat  sat."]).count == 1


def test_near_duplicates_of_large_corpora_compare_a_spread(monkeypatch):
    monkeypatch.setattr("mlxstories.data.splits.MOST_COMPARED", 10)
    found = near_duplicates([f"one two three {i}" for i in range(100)], ["one two three 90"])
    assert found.compared == (10, 1) and found.total == (100, 1)
    assert found.examples[0][1] == 90


def test_marks_by_the_thousand_take_time_by_their_number():
    began = time.process_time()
    fingerprint("e" + "\u0301\u0323" * 200_000)  # each pair out of order
    assert time.process_time() - began < 5  # by the square: minutes
    assert fingerprint("Cafe\u0301") == fingerprint("Caf\u00e9")


@given(st.text(alphabet="aB \n\té\u0301\u2003", max_size=40))
def test_a_long_story_is_compared_in_parts_as_in_one(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PART", 1)
        patch.setattr(splits, "_HASHED", 2)
        key, signature = fingerprint(text), splits._min_hash(text)
    assert key == fingerprint(text) == fingerprint(" ".join(text.split()))
    words = text.casefold().split()
    whole = MinHash(num_perm=len(signature), hashfunc=zlib.crc32)
    for start in range(max(1, len(words) - 2)):
        whole.update(" ".join(words[start : start + 3]).encode())
    assert signature == whole


@pytest.mark.long
def test_a_long_story_takes_a_small_multiple_of_its_length(monkeypatch):
    monkeypatch.setattr(splits, "_HASHED", 500)
    text = " ".join(f"w{i % 7919}" for i in range(200_000))
    tracemalloc.start()
    try:
        fingerprint(text)
        near_duplicates([text], ["The cat sat."])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(text)  # as a list of words it takes 15 times its length
