"""Whether decoded rows have kept the white space of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.tokens import CORPUS
from mlxstories.ladder.bench.data.verbatim import LARGEST, stretches, train_decoded


@dataclass(frozen=True)
class Whitespace:
    """Stretches of 32 characters that occur in a text once white space is ignored.

    Attributes:
        count: of them in the training rows.
        lost: share of them that have lost white space, or gained some in the middle of a word.
        own: the same of texts that the tokenizer encoded and decoded.
        spaces: share of white space in the texts.
    """

    count: int
    lost: float
    own: float
    spaces: float


@measurement
def whitespace(bench: Bench) -> Whitespace | None:
    """Look up stretches of decoded training rows in the texts, with all white space between two words as one space, and
    with none; None where the tokenizer cannot read them, or the texts are large."""
    size = sum(len(str(text)) for text in bench.subject.train_texts[:CORPUS])
    decoded = train_decoded(bench) if 0 < size <= LARGEST else None
    if decoded is None:
        return None
    # No stretch goes over the end of a text: what is put there is for the rows to choose.
    corpora = tuple("\0".join(joint.join(text.split()) for text in decoded.texts) for joint in (" ", ""))
    count, lost = _lost(decoded.rows, *corpora)
    words = sum(len("".join(text.split())) for text in decoded.texts)
    return Whitespace(count, lost, _lost(decoded.own, *corpora)[1], 1 - words / size)


def _lost(decoded: Sequence[str], spaced: str, bare: str) -> tuple[int, float]:
    """How many stretches occur in the bare text, and the share of these that do not occur in the spaced one."""
    known = [s for s in stretches(" ".join(text.split()) for text in decoded) if "".join(s.split()) in bare]
    return len(known), sum(s not in spaced for s in known) / max(len(known), 1)
