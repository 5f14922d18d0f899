"""Whether ids were held in fewer bits than they need."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.id_width import NarrowIds, narrow_ids
from mlxstories.ladder.limits import Gauges, Limit
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Draft, Verdict, error, failed, passed, warning


@check(
    "ids keep all their bits",
    rung="data",
    causes=("tokenizer-mismatch",),
    unless=("token-out-of-range",),
    quick=True,
    beyond=Limit(0.01, "of the tokenizer's ids need more bits"),
    cells=Limit(2000, "cells"),
    room=Limit(0.01, "of the ids that fit, between the highest and the last"),
)
def id_width(bench: Bench, limits: Gauges) -> Verdict:
    """Where all ids of the training batches fit into 8 or 16 bits and `vocab_size` does not, asks whether the tokenizer
    gives higher ids to `train_texts`; without these, whether the highest id is all but the last that fits.

    An id above 255 in 8 bits, or 65535 in 16, comes out as its remainder, and nobody complains: the batches hold other
    words.
    Example: `np.array(ids, dtype=np.uint16)` of a vocabulary of 128 000.
    Fix: store ids in 32 bits, or in the smallest type that holds `vocab_size - 1`.
    """
    found = narrow_ids(bench)
    if found is None or limits.cells.below(found.cells):
        return passed()
    detail = f"none above {found.highest}"
    if found.beyond is not None:
        if not limits.beyond.above(found.beyond):
            return passed(detail)
        told = f"{found.beyond:.0%} of those that the tokenizer gives to train_texts are"
        return failed(detail, _draft(bench, error, found, told))
    if limits.room.above(found.room):
        return passed(detail)
    return passed(detail, _draft(bench, warning, found, f"vocab_size is {bench.subject.vocab_size}"))


def _draft(bench: Bench, severity, found: NarrowIds, told: str) -> Draft:
    return severity(
        "tokenizer-mismatch",
        f"no id of the training batches is above {2**found.bits - 1}, the last that {found.bits} bits hold, and "
        f"{told}: higher ids may have been stored as their remainders",
        fix=f"store ids in a type that holds {bench.subject.vocab_size - 1}, uint32 for instance, and encode again",
        where="train_batches",
        highest=found.highest,
        vocab_size=bench.subject.vocab_size,
        **({} if found.beyond is None else {"share_beyond": found.beyond}),
    )
