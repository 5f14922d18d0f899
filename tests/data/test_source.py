"""The built-in stories: their distributions are exact, and they are what they are said to be."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from mlxstories.data import notation, source
from mlxstories.data.lexicon import LISTS
from mlxstories.data.tokenizer import normalise, words
from mlxstories.errors import StoriesError


@pytest.fixture(scope="module")
def many():
    return source.stories(8_000, 11)


@pytest.mark.long
def test_mean_surprise_agrees_with_entropy(many):
    difference = np.array([story.nats.sum() - story.entropy.sum() for story in many], dtype=np.float64)
    assert abs(difference.mean()) < 3 * difference.std() / math.sqrt(len(many))


def test_best_word_is_right_as_often_as_said(many):
    """Under the argmax rule of each choice, ties split evenly: hits have the mean ``best``."""
    best = np.concatenate([story.best for story in many])
    p = np.exp(-np.concatenate([story.nats for story in many]))
    # A word at least as probable as all others; among m tied words each is chosen with probability 1/m.
    choice = np.concatenate([story.kind for story in many]) == notation.CHOICE
    assert (p <= best + 1e-6).all()
    assert (best[~choice] == 1).all() and (p[~choice] == 1).all() and (best[choice] < 1).all()


def test_frequencies_match_the_probabilities(many):
    """First word of a story and the choices of one shared list, against their exact shares."""
    first = [story.words[0] for story in many]
    for word in set(first):
        p = math.exp(-next(story.nats[0] for story in many if story.words[0] == word))
        error = math.sqrt(p * (1 - p) / len(many))
        assert abs(first.count(word) / len(many) - p) < 4 * error


def test_walking_gives_the_numbers_of_telling(many):
    for story in many[:300]:
        again = source.walk(story.words)
        assert again.text == story.text and again.words == story.words
        for name in ("nats", "entropy", "best", "kind"):
            np.testing.assert_array_equal(getattr(again, name), getattr(story, name))


def test_alternatives_follow_from_the_words_alone(many):
    """The same words so far give the same distribution (the source is unifilar)."""
    known = {}
    for story in many[:3000]:
        for t in range(25):
            here = (float(story.entropy[t]), float(story.best[t]))
            assert known.setdefault(story.words[:t], here) == here


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda told: told[:-1], "the end"),
        (lambda told: [*told, "Then"], "'Then'"),
        (lambda told: [*told[:5], "zebra", *told[6:]], "'zebra'"),
        (lambda told: ["Zebra", *told[1:]], "'Zebra'"),
        (lambda told: [], "the end"),
    ],
)
def test_words_the_source_cannot_tell_are_refused(many, spoil, word):
    with pytest.raises(StoriesError, match=word):
        source.walk(spoil(list(many[0].words)))


def test_the_wrong_name_is_refused_where_it_should_be_recalled(many):
    story = many[0]
    names = [word for word in story.words if word in _entries("girl") | _entries("boy")]
    last = max(
        i for i, word in enumerate(story.words) if word == names[0] and story.kind[i] == notation.RECALL
    )
    other = "Mia" if names[0] != "Mia" else "Tom"
    with pytest.raises(StoriesError, match=f"'{other}' at word {last + 1}"):
        source.walk([*story.words[:last], other, *story.words[last + 1 :]])


def test_fewer_stories_are_the_beginning_of_more():
    some, more = source.stories(5, 3), source.stories(10, 3)
    assert [story.text for story in some] == [story.text for story in more[:5]]
    assert [story.text for story in more] == list(source.texts(10, 3))
    assert [story.text for story in more] != list(source.texts(10, 4))


def test_the_stories_of_a_seed_never_change():
    """A golden beginning: another Python or platform must tell the same stories."""
    assert next(iter(source.texts(1, 7))) == GOLDEN


def test_stories_hardly_repeat(many):
    assert len({story.text for story in many}) == len(many)
    surprise = np.array([story.nats.sum() for story in many])
    assert surprise.min() > 40 * math.log(2)  # so even the likeliest comes once in 2^40 stories


def test_stories_read_as_they_should(many):
    lengths = np.array([len(story.words) for story in many])
    assert lengths.min() >= 60 and lengths.max() <= 210
    assert 700 <= len(source.vocabulary()) <= 1500
    assert {word for story in many for word in story.words} <= source.vocabulary()
    for story in many[:300]:
        assert words(story.text) == list(story.words)
        assert normalise(story.text).replace("“", '"').replace("”", '"') == story.text
        assert story.text.count('"') % 2 == 0
        assert story.text[0].isupper() and story.text[-1] in '.!"'
        for now, after in zip(story.words, story.words[1:], strict=False):
            assert now not in ("a", "A") or after[0] not in "aeio"
            assert now not in ("an", "An") or after[0] in "aeiou" or after == "honest"
            assert now not in (".", "!", "?") or after == "”" or not after.islower() or after in _VERBS


def _entries(name):
    return {entry.partition("*")[0].strip() for entry in LISTS[name].split(",")}


_VERBS = _entries("said") | {"the", "said"}


def test_stories_hold_recalled_words_and_choices(many):
    kind = np.concatenate([story.kind for story in many])
    share = np.bincount(kind, minlength=3) / len(kind)
    assert share[notation.RECALL] > 0.09
    assert 0.3 < share[notation.CHOICE] < 0.5


def test_recalled_words_were_told_before(many):
    """Recall is copying: every recalled word but a pronoun stands earlier in the story."""
    pronouns = {"he", "she", "his", "her", "him"}
    for story in many[:300]:
        for i in np.flatnonzero(story.kind[:-1] == notation.RECALL):
            assert story.words[i].lower() in pronouns or story.words[i] in story.words[:i]


@pytest.mark.parametrize("name", LISTS)
def test_no_entry_of_a_list_begins_another(name):
    notation.drawn(name)  # raises if one does


def test_a_beginning_of_another_alternative_is_refused():
    with pytest.raises(ValueError, match="begins another"):
        notation.choice([(1, ("a",), (), {}), (1, ("a", "b"), (), {})])


def test_a_choice_has_the_probabilities_computed_by_hand():
    """Weights 2 : 1 : 1 over "a b", "a c", "d": by hand."""
    choice = notation.choice([(2, ("a", "b"), (), {}), (1, ("a", "c"), (), {}), (1, ("d",), (), {})])
    record = choice.alternatives[1].program[0].record
    third = math.log(3) * 1 / 3 + math.log(1.5) * 2 / 3
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(record[0], [-math.log(0.75), math.log(3)], rtol=1e-6)
    np.testing.assert_allclose(record[1], [quarter, third], rtol=1e-6)
    np.testing.assert_allclose(record[2], [0.75, 2 / 3], rtol=1e-6)
    assert record[3].tolist() == [notation.CHOICE, notation.CHOICE]
    assert choice.thresholds == (0.5, 0.75)


def test_stories_and_probabilities_are_what_they_have_always_been():
    """Every recorded floor rests on them. The logarithms may differ in the last bit from machine to machine."""
    digest, sums = hashlib.sha256(), np.zeros(3)
    for story in source.stories(500, 7):
        digest.update(story.text.encode() + story.kind.tobytes())
        sums += [getattr(story, name).sum(dtype=np.float64) for name in ("nats", "entropy", "best")]
    assert digest.hexdigest() == "4617e2fbb1f407b0a000ba23e6fa35afa6d3dd10dd97a191cc44c75097200816"
    np.testing.assert_allclose(sums, [59830.6249, 59834.3941, 43093.2874], rtol=1e-7)


def test_too_few_stories_are_refused():
    with pytest.raises(StoriesError, match="at least 1; got 0"):
        source.stories(0, 1)


GOLDEN = (
    "Once upon a time, there was a friendly boy named Tom. Tom liked to skip and fish with a silver "
    'cat named Misty. One sunny day, Misty walked to the market with a clean speckled watch. "Yes! May '
    'I hold the watch?" Tom muttered loudly. Misty handed Tom the watch. In the end, Tom felt excited '
    "and Misty sneezed slowly. He and Misty danced to the market every Thursday."
)


def test_the_beginning_that_the_source_can_tell(many):
    for number, story in enumerate(many[:60]):
        told, count = source.beginning(story.words)
        assert count == len(story.words) + 1 and told.words == story.words
        place = number % len(story.words)
        told, count = source.beginning([*story.words[:place], "zebra", *story.words[place + 1 :]])
        assert count == place
        np.testing.assert_array_equal(told.kind[:place], story.kind[:place])
        np.testing.assert_array_equal(told.nats[:place], story.nats[:place])
        assert source.beginning(story.words[:place])[1] == place
    assert source.beginning([])[1] == 0
