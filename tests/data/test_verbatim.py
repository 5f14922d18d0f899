"""What a story shares with its training text, word for word."""

import random

from mlxstories.data.verbatim import longest


def test_the_longest_passage_and_where_it_stands():
    texts = [
        ("a.txt", "Once there was a fox who lived under the old oak tree."),
        ("b.txt", "He said: a fox who lived under the old oak “tree” and slept."),
    ]
    (found,) = longest(["I saw a fox who lived under the old oak tree, and slept well."], texts)
    assert (found.words, found.source) == (11, "b.txt")
    assert found.text == "a fox who lived under the old oak tree and slept"


def test_shorter_than_five_words_is_nothing():
    assert longest(["the old oak tree"], [(None, "under the old oak tree.")]) == [None]
    assert longest([], [(None, "under the old oak tree.")]) == []


def test_it_agrees_with_trying_every_pair_of_places():
    draw = random.Random(3)
    for _ in range(30):
        story, text = (" ".join(draw.choice("abc") for _ in range(40)) for _ in range(2))
        a, b = story.split(), text.split()
        lengths = [
            next((n for n in range(40) if i + n >= 40 or j + n >= 40 or a[i + n] != b[j + n]), 40)
            for i in range(40)
            for j in range(40)
        ]
        (found,) = longest([story], [("x", text)])
        assert (found.words if found else 0) == (max(lengths) if max(lengths) >= 5 else 0)
