"""Ids that no text becomes: by mistake, or as marks."""

from __future__ import annotations

import numpy as np
import pytest
from spelled import SIGNS, STORY, Letters, of_letters
from tiny import judged

from mlxstories.ladder.bench.data.foreign_ids import foreign


def test_ids_read_in_halves_are_an_error():
    ids = np.array(Letters().encode(STORY) * 10, "<u4")
    bench = of_letters(np.frombuffer(ids.tobytes(), "<u2"), [STORY] * 10)
    assert foreign(bench).token == 0 and foreign(bench).share == pytest.approx(0.5, abs=0.01)
    assert judged("targets are what texts are made of", bench) == [("tokenizer-mismatch", "error")]


@pytest.mark.parametrize("every", [0, 4])
def test_marks_between_phrases_are_left_alone(every):
    ids = Letters().encode(STORY) * 10
    marked = [i for at, i in enumerate(ids) for i in ([i, 0] if every and at % every == 0 else [i])]
    assert judged("targets are what texts are made of", of_letters(marked, [STORY] * 10)) == []


@pytest.mark.parametrize(("every", "told"), [(24, []), (5, [("tokenizer-mismatch", "error")])])
def test_rows_are_read_between_a_few_marks_that_the_tokenizer_does_not_know(every, told):
    ids = Letters().encode(STORY) * 10
    mark = len(SIGNS) + 3  # the tokenizer raises an IndexError
    marked = [i for at, i in enumerate(ids) for i in ([i, mark] if at % every == 0 else [i])]
    assert judged("tokenizer fits the train batches", of_letters(marked, [STORY] * 10)) == told
