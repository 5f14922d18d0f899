"""White space lost on the way from texts into rows."""

from __future__ import annotations

import re

import pytest
from spelled import STORY, Letters, of_letters
from tiny import judged

from mlxstories.ladder.bench.data.whitespace import whitespace


@pytest.mark.parametrize(
    ("text", "row", "lost"),
    [
        (STORY, STORY, False),
        (STORY, re.sub(r"(?<=[.!]) ", "", STORY), True),
        (STORY, STORY.replace(" ", ""), True),
        (re.sub(r"(?<=[.!]) ", "\n", STORY), STORY, False),  # lines become spaces
        (STORY.replace(". ", ".  "), STORY, False),  # less white space
        (STORY, STORY.lower(), False),  # another text, of which nothing is known
        (STORY.replace(" ", ""), STORY, False),  # texts without white space
    ],
)
def test_white_space_lost_on_the_way_into_rows_is_an_error(text, row, lost):
    bench = of_letters(Letters().encode(row) * 20, [text] * 20)
    assert judged("white space is kept", bench) == ([("tokenizer-mismatch", "error")] if lost else [])


def test_nothing_is_said_of_what_stands_between_texts():
    bench = of_letters(Letters().encode(STORY) * 20, [STORY] * 20)
    assert whitespace(bench).lost == 0 and whitespace(bench).count > 20
