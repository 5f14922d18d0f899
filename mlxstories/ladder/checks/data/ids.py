"""Whether every id can be looked up."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.data.rows import outsiders
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check("ids inside the vocabulary", rung="data", causes=("token-out-of-range",), quick=True)
def ids(bench: Bench, limits: Gauges) -> Verdict:
    """Compares every id of inputs and targets with `vocab_size`; padding may be negative in targets, and in inputs as
    far as it counts from the end of the table.

    MLX reads past the end of a table without a word: logits and losses are then made of whatever lies in memory there.
    A negative id counts from the end, and no loss of MLX's leaves one out, as PyTorch's do -100.
    Example: a tokenizer that gained a special token after `vocab_size` was written down.
    Fix: take `vocab_size` from the tokenizer that made the batches.
    """
    size, found = bench.subject.vocab_size, outsiders(bench)
    if not found:
        return passed(f"0 to {size - 1}")
    first, highest = found[0], max(item.highest for item in found)
    negative = -size <= first.first < 0
    done = (
        f"takes it for id {first.first + size}, counted from the end" if negative else "reads past the table"
    )
    keep = f"keep all ids from 0 to {size - 1}, padding's too"
    if first.first < 0 and first.side == "targets":
        keep += ", or leave such targets out of the loss by a mask of them, targets >= 0"
    draft = error(
        "token-out-of-range",
        f"batch {first.batch} of {first.source} holds id {first.first} in its {first.side}, outside 0 to {size - 1}; "
        f"MLX {done} without a word",
        fix=f"set vocab_size to at least {highest + 1} or encode with a tokenizer of {size} ids"
        if highest >= size
        else keep,
        where=f"{first.source}, batch {first.batch}",
        id=first.first,
        vocab_size=size,
        cells=sum(item.cells for item in found),
    )
    return failed(f"id {first.first} is not of 0 to {size - 1}", draft)
