"""Whether there is anything to train on."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, passed


@check("batches readable", rung="data", causes=("subject-error",), quick=True)
def readable(bench: Bench, limits: Gauges) -> Verdict:
    """Reads an epoch of training (at most 400 batches and 400 000 tokens) and the validation batches: inputs, targets
    and mask of one shape, whole numbers, some of them real.

    An epoch without batches trains nothing and raises nothing; a mask of zeros divides by zero.
    Example: `for i in range(len(rows) // batch_size)` with fewer rows than a batch yields nothing.
    Fix: yield `Batch(inputs, targets, mask)`, each of shape [B, T], at least once an epoch.
    """
    epoch = train_epoch(bench)
    val_epoch(bench)
    rows, columns = epoch.batches[0].shape
    return passed(f"{len(epoch.batches)} of {rows} x {columns} read")
