"""How much of decoded rows stands in the texts letter by letter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.texts import ids_of
from mlxstories.ladder.bench.data.tokens import CORPUS, Phrases, real_rows, spread
from mlxstories.ladder.bench.epoch import Epoch
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch

_STRETCH = 32  # characters
LARGEST = 20_000_000  # characters: more take seconds to look through


@dataclass(frozen=True)
class Verbatim:
    """Stretches of 32 characters that occur in the texts.

    Attributes:
        rows: of decoded rows.
        own: of texts that the tokenizer encoded and decoded.
    """

    rows: Phrases
    own: Phrases

    @property
    def kept(self) -> float:
        """Share of the rows' stretches, relative to the tokenizer's own."""
        return self.rows.share / self.own.share if self.own.share else 0.0

    @property
    def count(self) -> int:
        return min(self.rows.count, self.own.count)


@dataclass(frozen=True)
class Decoded:
    """What the tokenizer makes of ids.

    Attributes:
        texts: as they are, the first of them.
        rows: some of an epoch's, decoded.
        own: some of the texts, encoded and decoded.
    """

    texts: list[str]
    rows: list[str]
    own: list[str]


@measurement
def train_decoded(bench: Bench) -> Decoded | None:
    """Of training; None where the tokenizer cannot read it."""
    return _decoded(bench, train_epoch(bench), bench.subject.train_texts)


@measurement
def verbatim(bench: Bench) -> tuple[Verbatim, Verbatim] | None:
    """Of training and of validation; None where the tokenizer cannot read them, or they are large."""
    subject = bench.subject
    if sum(len(str(text)) for text in (*subject.train_texts[:CORPUS], *subject.val_texts[:CORPUS])) > LARGEST:
        return None
    train, val = train_decoded(bench), _decoded(bench, val_epoch(bench), subject.val_texts)
    return None if train is None or val is None else (_verbatim(train), _verbatim(val))


def stretches(texts: Iterable[str]) -> list[str]:
    """Each text cut into pieces of 32 characters; what is left at its end is left out."""
    return [t[at : at + _STRETCH] for t in texts for at in range(0, len(t) - _STRETCH + 1, _STRETCH)]


def _decoded(bench: Bench, epoch: Epoch, texts: Sequence[str]) -> Decoded | None:
    tokenizer, texts = bench.subject.tokenizer, [str(text) for text in texts[:CORPUS]]
    try:
        rows = [str(tokenizer.decode(ids)) for ids in real_rows(epoch)]
        return Decoded(
            texts, rows, [str(tokenizer.decode(ids_of(tokenizer, text))) for text in spread(texts)]
        )
    except Exception:  # another check tells what the tokenizer cannot decode
        return None


def _verbatim(decoded: Decoded) -> Verbatim:
    corpus = " ".join(decoded.texts)
    return Verbatim(_found(decoded.rows, corpus), _found(decoded.own, corpus))


def _found(decoded: list[str], corpus: str) -> Phrases:
    pieces = stretches(map(str.strip, decoded))
    hits = sum(piece in corpus for piece in pieces)
    return Phrases(hits / len(pieces) if pieces else 0.0, len(pieces))
