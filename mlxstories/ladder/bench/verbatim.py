"""How much of decoded rows stands in the texts letter by letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.material import Epoch, train_epoch, val_epoch
from mlxstories.ladder.bench.tokens import CORPUS, Phrases, real_rows, spread

_STRETCH = 32  # characters
_LARGEST = 20_000_000  # characters: more take seconds to look through


@dataclass(frozen=True)
class Verbatim:
    """Stretches of 32 characters that stand in the texts.

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


@measurement
def verbatim(bench: Bench) -> tuple[Verbatim, Verbatim] | None:
    """Of training and of validation; None where the tokenizer cannot read them, or they are large."""
    subject = bench.subject
    try:
        if sum(map(len, (*subject.train_texts[:CORPUS], *subject.val_texts[:CORPUS]))) > _LARGEST:
            return None
        return (
            _verbatim(bench, train_epoch(bench), subject.train_texts),
            _verbatim(bench, val_epoch(bench), subject.val_texts),
        )
    except Exception:  # another check tells what the tokenizer cannot decode
        return None


def _verbatim(bench: Bench, epoch: Epoch, texts: Sequence[str]) -> Verbatim:
    tokenizer, texts = bench.subject.tokenizer, [str(text) for text in texts[:CORPUS]]
    corpus = " ".join(texts)
    return Verbatim(
        _found([tokenizer.decode(ids) for ids in real_rows(epoch)], corpus),
        _found([tokenizer.decode(tokenizer.encode(text)) for text in spread(texts)], corpus),
    )


def _found(decoded: list[str], corpus: str) -> Phrases:
    stretches = [
        text[at : at + _STRETCH]
        for text in map(str.strip, decoded)
        for at in range(0, len(text) - _STRETCH + 1, _STRETCH)
    ]
    hits = sum(stretch in corpus for stretch in stretches)
    return Phrases(hits / len(stretches) if stretches else 0.0, len(stretches))
