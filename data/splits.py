"""Training and validation stories that share nothing: duplicates and splits by story."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from mlxstories.bounds import check_choice
from mlxstories.data.tokenizer import parts
from mlxstories.errors import StoriesError

SPLITS = ("seeded", "tail")

MOST_VALIDATION = 500  # stories held out when their number is left open
MOST_COMPARED = 5000  # training stories searched for near-duplicates
ONE_STORY = (
    "all of it is one story, and none is left to hold out: give more, say what separates stories "
    "(--separator line, if each line is one)"
)
_SIMILAR = 0.8  # Jaccard similarity of word triples from which stories count as near-duplicates
_PERMUTATIONS = 64
_HASHED = 10_000  # word triples at a time, for each takes 64 numbers
_JOINER = "\u034f"


def fingerprint(text: str) -> bytes:
    """What two stories share if they differ at most in case, spacing and Unicode form."""
    if not text.isascii():
        text = _marks().sub(rf"\g<0>{_JOINER}", text)
    spaced = (" ".join(part.split()) for part in parts(unicodedata.normalize("NFC", text).casefold()))
    normal = " ".join(part for part in spaced if part)
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@cache
def _marks() -> re.Pattern:
    """As many combining marks in a row as are put in order together.

    Normalisation takes time by the square of their number, so a joiner ends a run of 30, as in the Stream-Safe Text
    Format (Unicode Standard Annex 15, section 13).
    """
    marks = "".join(map(chr, filter(lambda code: unicodedata.combining(chr(code)), range(0x300, 0x20000))))
    return re.compile(f"[{marks}]{{30}}")


def distinct(texts: Iterable[str], seen: set[bytes]) -> Iterator[str]:
    """The texts whose fingerprint is not in ``seen``, which grows by each of them."""
    for text in texts:
        key = fingerprint(text)
        if key not in seen:
            seen.add(key)
            yield text


def split(
    texts: Sequence[str], *, method: str = "seeded", validation: int | None = None, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Training and validation stories.

    ``seeded`` draws the validation stories at random and keeps the rest in a random order; ``tail`` holds
    out the last stories in order and cuts a single one in two. ``validation`` is their number; if None, a
    tenth of the stories, at most 500 of them when drawn.

    Raises StoriesError if either side would be empty.
    """
    check_choice("split", method, SPLITS)
    total = len(texts)
    if total == 1:
        return _cut_in_two(texts[0], method, validation)
    if validation is None:
        validation = max(1, total // 10)
        if method == "seeded":
            validation = min(validation, MOST_VALIDATION)
    if not 1 <= validation < total:
        raise StoriesError(
            f"validation must leave a story to train on: 1 to {total - 1} of {total} distinct stories; "
            f"got {validation}"
        )
    if method == "tail":
        return list(texts[:-validation]), list(texts[-validation:])
    order = np.random.default_rng(seed).permutation(total)
    return [texts[i] for i in order[validation:]], [texts[i] for i in order[:validation]]


def _cut_in_two(text: str, method: str, validation: int | None) -> tuple[list[str], list[str]]:
    if method != "tail":
        raise StoriesError(f"{ONE_STORY}, or hold out its last tenth (--split tail)")
    if validation is not None:
        raise StoriesError("one story is cut at nine tenths; leave out --validation")
    cut = len(text) * 9 // 10
    if not text[:cut].strip() or not text[cut:].strip():
        raise StoriesError(f"a story of {len(text)} characters is too short to be cut in two; give more text")
    return [text[:cut]], [text[cut:]]


@dataclass(frozen=True)
class NearDuplicates:
    """Validation stories that closely resemble training stories.

    Attributes:
        count: validation stories with a near-duplicate among the compared training stories.
        compared: (training, validation) stories compared.
        total: (training, validation) stories there are.
        examples: (validation index, training index, estimated similarity), the most similar first.
    """

    count: int
    compared: tuple[int, int]
    total: tuple[int, int]
    examples: tuple[tuple[int, int, float], ...]


def near_duplicates(train: Sequence[str], val: Sequence[str], *, examples: int = 3) -> NearDuplicates:
    """Find near-duplicates across the split by MinHash over word triples (Broder 1997).

    At most 5,000 training and 500 validation stories are compared, evenly spread; ``compared`` says so.
    """
    from datasketch import MinHashLSH

    train_at, val_at = _spread(len(train), MOST_COMPARED), _spread(len(val), MOST_VALIDATION)
    index = MinHashLSH(threshold=_SIMILAR, num_perm=_PERMUTATIONS)
    known = {}
    for i in train_at:
        known[i] = _min_hash(train[i])
        index.insert(i, known[i])
    found = []
    for j in val_at:
        mine = _min_hash(val[j])
        matches = [(mine.jaccard(known[i]), -i) for i in index.query(mine)]
        if matches and max(matches)[0] >= _SIMILAR:
            similarity, i = max(matches)
            found.append((j, -i, float(similarity)))
    found.sort(key=lambda match: (-match[2], match[0]))
    return NearDuplicates(
        len(found), (len(train_at), len(val_at)), (len(train), len(val)), tuple(found[:examples])
    )


def _spread(total: int, most: int) -> list[int]:
    return [i * total // min(total, most) for i in range(min(total, most))]


def _min_hash(text: str):
    from datasketch import MinHash

    triples = _triples(word for part in parts(text.casefold()) for word in part.split())
    signature = MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    while batch := {triple.encode("utf-8") for triple in islice(triples, _HASHED)}:
        signature.update_batch(batch)
    return signature


def _triples(words: Iterator[str]) -> Iterator[str]:
    """Each three words in a row; fewer where there are no three."""
    window = list(islice(words, 3))
    yield " ".join(window)
    for word in words:
        window = [*window[1:], word]
        yield " ".join(window)
