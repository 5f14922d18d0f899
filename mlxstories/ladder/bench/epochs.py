"""The subject's epochs that are looked at: the first two of training, and validation."""

from __future__ import annotations

from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.epoch import Epoch, raw_epoch, read
from mlxstories.ladder.bench.loss.convention import convention


@measurement
def train_epoch(bench: Bench) -> Epoch:
    """The first epoch of training.

    Raises:
        SubjectFault: there is nothing in it to train on.
    """
    return raw_epoch(bench).by(convention(bench))


@measurement
def val_epoch(bench: Bench) -> Epoch | None:
    """The validation batches, where the subject has some.

    Raises:
        SubjectFault: there are none in it.
    """
    if bench.subject.val_batches is None:
        return None
    epoch = read(bench, "val_batches()", bench.subject.val_batches)
    if not epoch.batches:
        raise bench.fault("val_batches() yields no batch", "yield at least one batch")
    return epoch.by(convention(bench))


@measurement
def val_again(bench: Bench) -> bool | None:
    """Whether validation can be read a second time; None where there is none."""
    if val_epoch(bench) is None:
        return None
    with bench.calling("val_batches()"):
        return next(iter(bench.subject.val_batches()), None) is not None


@measurement
def second_epoch(bench: Bench) -> Epoch:
    """What training reads next, with the seed after the first epoch's; possibly nothing."""
    seed = bench.seed + 1
    epoch = read(bench, f"train_batches({seed})", lambda: bench.subject.train_batches(seed))
    return epoch.by(convention(bench))


def whole_epochs(bench: Bench) -> list[Epoch] | None:
    """The first and the second epoch of training; None where either is empty or was not read to its end."""
    found = [train_epoch(bench), second_epoch(bench)]
    return found if all(epoch.batches and epoch.complete for epoch in found) else None


def epoch_steps(bench: Bench) -> int | None:
    """Batches of an epoch of training, where all of them were read."""
    epoch = train_epoch(bench)
    return len(epoch.batches) if epoch.complete else None


def epochs(bench: Bench) -> list[tuple[str, Epoch]]:
    """Training and, where there is any, validation, by the field's name."""
    val = val_epoch(bench)
    return [("train_batches", train_epoch(bench))] + ([("val_batches", val)] if val else [])
