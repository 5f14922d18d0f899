"""Whether rows are held against the texts where parts of them do not count."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.ladder import Subject
from mlxstories.ladder.bench import Bench
from mlxstories.ladder.registry import CHECKS

WORDS = [f"w{i}" for i in range(64)]


class Words:
    """An id for each word, in one order or another."""

    def __init__(self, seed=None):
        order = np.arange(len(WORDS)) if seed is None else np.random.default_rng(seed).permutation(len(WORDS))
        self.words = [WORDS[i] for i in order]

    def encode(self, text):
        return [self.words.index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)


def codes(tokenizer):
    """Rows of 40 words, of which every other five count, as the answers of a talk do."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 41)) for _ in range(32)]
    ids = np.array([Words().encode(text) for text in texts], np.int32)
    mask = mx.array(np.broadcast_to(np.arange(40) // 5 % 2, (32, 40)).astype(np.float32))
    bench = Bench(
        Subject(
            model=lambda: None,
            vocab_size=len(WORDS),
            tokenizer=tokenizer,
            train_texts=texts,
            train_batches=lambda seed: [(mx.array(ids[:, :-1]), mx.array(ids[:, 1:]), mask)],
        )
    )
    checked = CHECKS["tokenizer fits the train batches"]
    return [draft.code for draft in checked.ask(bench, checked.gauges()).drafts]


@pytest.mark.parametrize(
    ("tokenizer", "said"), [(Words(), []), (Words(seed=1), ["tokenizer-mismatch"])], ids=["own", "another"]
)
def test_what_is_parted_by_what_does_not_count_is_no_phrase(tokenizer, said):
    assert codes(tokenizer) == said
