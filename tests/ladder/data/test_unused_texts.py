"""Sources that no batch teaches, and texts of which batches hold the beginning alone."""

from __future__ import annotations

import numpy as np
import pytest
from spelled import TEXTS, Digits, dealt, rows_of
from tiny import T, V, judged, subject

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.unused_texts import text_beginnings, unused_texts


def of_texts(trained, val, texts=None, length=T):
    return Bench(
        subject(
            train_batches=lambda seed: dealt(
                np.random.default_rng(seed).permutation(rows_of(trained, length))
            ),
            val_batches=lambda: dealt(rows_of(val)),
            tokenizer=Digits(),
            train_texts=texts or TEXTS,
            val_texts=val,
        )
    )


def mixed(texts):
    """Pieces of texts, too short to be taken for the texts themselves."""
    count = len(texts)
    return ["".join(texts[(n + i) % count][7 * i : 7 * i + 7] for i in range(8)) for n in range(count)]


def test_rows_of_a_source_that_is_never_read_lack_what_others_do_not():
    """A source of few pairs, which validation repeats, beside digits at random."""
    pairs = ["ab" * 4 + "".join(f"b{TEXTS[n][i]}" for i in range(26)) for n in range(12)]
    again = ["ab" * 30 for _ in range(4)]
    unread = unused_texts(of_texts(TEXTS, mixed(TEXTS) + again, TEXTS + pairs))
    read = unused_texts(of_texts(TEXTS + pairs, mixed(TEXTS) + again, TEXTS + pairs))
    assert unread.of_a_kind > read.of_a_kind and read.of_a_kind < 0.02 and unread.median < 0.1


def test_texts_that_are_validation_itself_are_no_lost_teaching():
    found = unused_texts(of_texts(TEXTS[:30], TEXTS[30:]))
    assert found.of_a_kind == 0 and found.median == 0


def test_the_rest_of_each_text_is_told_from_a_part_of_the_texts():
    long = ["".join(TEXTS[n : n + 4]) for n in range(0, 32, 4)]
    cut = text_beginnings(of_texts([text[:41] for text in long], TEXTS[:4], long, 40))
    some = text_beginnings(of_texts(long[:3], TEXTS[:4], long, 40))
    assert cut.texts == some.texts == 8
    assert cut.rest < 0.1 < some.rest and some.head < 0.5


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (lambda ids: [ids[at : at + 41] for at in range(0, len(ids) - 40, 40)], True),
        (lambda ids: [ids[:41]], True),
        (lambda ids: [[*ids[at : at + 41], *[V - 1] * 40][:41] for at in range(0, len(ids), 40)], False),
        (lambda ids: [ids[at : at + 41] for at in (0, len(ids) - 42)], False),
    ],
    ids=["rest-dropped", "cut-off", "padded", "stripped"],
)
def test_ends_of_texts_that_no_batch_holds(cut, told):
    texts = [TEXTS[n] + TEXTS[-n][: -1 - n % 19 : -1] for n in range(40)]
    table = np.array([row for text in texts for row in cut(Digits().encode(text))])
    said = judged(
        "the ends of texts reach a batch",
        train_batches=lambda seed: dealt(np.random.default_rng(seed).permutation(table)),
        tokenizer=Digits(),
        train_texts=texts,
    )
    assert said == [("texts-never-seen", "warning")] * told
