"""The training texts as the subject's tokenizer writes them, and which stretches of tokens an epoch holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.hashing import distinct, rolling
from mlxstories.ladder.bench.epoch import Epoch

_CELLS = 400_000  # tokens of the first texts


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text; where encode returns an object, as Hugging Face's tokenizers do, the ids in it."""
    told = tokenizer.encode(text)
    return [int(i) for i in getattr(told, "ids", told)]


def encoded(bench: Bench, texts: Iterable) -> Iterator[np.ndarray]:
    """The ids [T] of one text after the other."""
    for text in texts:
        with bench.calling("the tokenizer"):
            ids = np.array(ids_of(bench.subject.tokenizer, str(text)), np.int64)
        yield ids  # outside: whoever ends the generator early is no fault of the tokenizer's


def spread(bench: Bench, count: int) -> Iterator[np.ndarray]:
    """The ids [T] of so many training texts, spread over all of them."""
    texts = bench.subject.train_texts
    numbers = np.unique(np.linspace(0, len(texts) - 1, count).astype(int)) if len(texts) else ()
    return encoded(bench, (texts[int(number)] for number in numbers))


@measurement
def first_texts(bench: Bench) -> list[np.ndarray]:
    """The ids [T] of each of the first training texts, up to about 400,000 tokens."""
    found, cells = [], 0
    for ids in encoded(bench, bench.subject.train_texts):
        found.append(ids)
        cells += ids.size
        if cells >= _CELLS:
            break
    return found


def held(epoch: Epoch, length: int) -> np.ndarray:
    """Hashes of all stretches of so many tokens in an epoch's rows, whether they count or not: the inputs and the last
    target of each row."""
    found = [rolling(b.tokens, length).ravel() for b in epoch.batches if b.shape[1] >= length]
    return distinct(np.concatenate(found or [np.empty(0, np.uint64)]))
