"""Whether decoded rows have kept the white space of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import train_epoch
from mlxstories.ladder.bench.tokens import CORPUS, real_rows, spread

_STRETCH = 32  # characters
_LARGEST = 20_000_000  # characters: more take seconds to look through


@dataclass(frozen=True)
class Spacing:
    """Stretches of 32 characters that stand in a text but for white space.

    Attributes:
        count: of them in the training rows.
        lost: share of them that have lost white space, or got some in the middle of a word.
        own: the same of texts that the tokenizer encoded and decoded.
        spaces: share of white space in the texts.
    """

    count: int
    lost: float
    own: float
    spaces: float


@measurement
def spacing(bench: Bench) -> Spacing | None:
    """Look stretches of decoded training rows up in the texts, with one space for all white space between two words,
    and with none; None where the tokenizer cannot read them, or the texts are large."""
    subject = bench.subject
    texts = [str(text) for text in subject.train_texts[:CORPUS]]
    size = sum(map(len, texts))
    if not 0 < size <= _LARGEST:
        return None
    # No stretch goes over the end of a text: what is put there is for the rows to choose.
    corpora = tuple("\0".join(joint.join(text.split()) for text in texts) for joint in (" ", ""))
    try:
        rows = [str(subject.tokenizer.decode(ids)) for ids in real_rows(train_epoch(bench))]
        own = [str(subject.tokenizer.decode(subject.tokenizer.encode(text))) for text in spread(texts)]
    except Exception:  # another check tells what the tokenizer cannot decode
        return None
    count, lost = _lost(rows, *corpora)
    return Spacing(
        count, lost, _lost(own, *corpora)[1], 1 - sum(len("".join(t.split())) for t in texts) / size
    )


def _lost(decoded: Sequence[str], spaced: str, bare: str) -> tuple[int, float]:
    """How many stretches stand in the bare text, and the share of them that do not in the spaced one."""
    lines = [" ".join(text.split()) for text in decoded]
    stretches = [t[at : at + _STRETCH] for t in lines for at in range(0, len(t) - _STRETCH + 1, _STRETCH)]
    known = [s for s in stretches if "".join(s.split()) in bare]
    return len(known), sum(s not in spaced for s in known) / max(len(known), 1)
