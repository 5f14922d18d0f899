"""Stories in words: they begin as they were asked to, and end at a sentence."""

import pytest

from mlxstories.data.tokenizer import UNKNOWN, Tokenizer
from mlxstories.generation.story_text import encode, ended, ended_tokens, told

TEXT = "Tom lost a red ball. Mia found the ball, and Tom was happy."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Tom ran. He fell. And th", "Tom ran. He fell."),
        ('Tom ran. "Stop!" said', 'Tom ran. "Stop!"'),
        ("Tom ran. Tom ran. Tom ran. Tom", "Tom ran. Tom ran. Tom ran."),
        (
            "He paid 3.50 for it, which",
            "He paid 3.50 for it, which",
        ),
        (
            "Hm. and a long sentence that never ends",
            "Hm. and a long sentence that never ends",
        ),
        ("", ""),
    ],
)
def test_a_story_ends_at_a_sentence(text, shown):
    assert ended(text) == shown
    tokenizer = Tokenizer.train("char", [TEXT, text], 100)
    assert tokenizer.decode(ended_tokens(tokenizer, tokenizer.encode(text))) == shown


def test_the_nearest_spelling_stands_for_a_word_never_seen():
    tokenizer = Tokenizer.train("word", [TEXT], 100)
    tokens, notes = encode(tokenizer, "Tom fond a zebra", 100)
    assert tokens[1] == tokenizer.encode("found")[0] and tokens[3] == UNKNOWN
    assert len(notes) == 2
    text = told(tokenizer, "Tom fond a zebra", tokens, tokenizer.encode("ball"), finished=True)
    assert text == "Tom fond a zebra ball"


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_what_is_told_begins_with_the_prompt(kind):
    tokenizer = Tokenizer.train(kind, [TEXT], 300)
    tokens, notes = encode(tokenizer, "Tom was", 100)
    assert not notes
    assert told(tokenizer, "Tom was", tokens, tokenizer.encode(" happy."), finished=True) == "Tom was happy."


def test_of_a_prompt_as_long_as_the_context_the_end_is_told_on():
    tokenizer = Tokenizer.train("char", [TEXT], 100)
    prompt = "Tom lost a red ball."
    assert encode(tokenizer, prompt, len(prompt) + 1) == (tokenizer.encode(prompt), [])
    tokens, (note,) = encode(tokenizer, prompt, len(prompt))
    assert tokens == tokenizer.encode(" red ball.") and "the last 10 of them" in note
    assert told(tokenizer, prompt, tokens, tokenizer.encode(" Mia"), finished=True) == prompt + " Mia"


@pytest.mark.parametrize(
    ("kind", "prompt", "note"),
    [
        ("char", "Qx", "the model never saw 'Q', 'x': they are told as unknown characters"),
        ("char", "zebra z", "the model never saw 'z': it is told as an unknown character"),
        (
            "word",
            "A B C D E F G",
            "the model never saw 'A', 'B', 'C', 'D', 'E' and 2 more: they are told as unknown words",
        ),
    ],
)
def test_what_was_never_seen_is_told_in_one_note(kind, prompt, note):
    tokenizer = Tokenizer.train(kind, [TEXT + " zebra"[2:]], 100)
    assert encode(tokenizer, prompt, 100)[1] == [note]
