"""A short real training on fresh batches, variants of it, and what counts alone reach on the same held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.ladder.bench.arrays import token_losses
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.bench import Bench, measurement
from mlxstories.ladder.bench.data.baselines import Baselines, count_baselines
from mlxstories.ladder.bench.epochs import train_epoch, val_epoch
from mlxstories.ladder.bench.samples import minimal_batch, pool, sample
from mlxstories.ladder.bench.step.adam import uncorrected_betas
from mlxstories.ladder.bench.training.rates import rate_sweep
from mlxstories.ladder.bench.training.trial import Trial, score, train
from mlxstories.ladder.modes import in_mode
from mlxstories.trees import by_path

_RAMP = 10  # steps over which the update grows to its full size
_BUDGET = 600_000  # logits of one step
_HEAVY = 500_000  # logits of one step from which fewer are taken
_SLOW = 1_000_000_000  # weights times tokens of one step from which fewer still are taken
_LONGER = 3  # times the steps, before an accusation
_ELSEWHERE = 0.5  # of a first weight's usual size, added to it as noise


@dataclass(frozen=True)
class Rows:
    """Training batches of a bounded size, and rows held out of them.

    Attributes:
        unseen: whether the held-out rows are validation rows.
        apart: whether the batches leave them out; where rows are few, none can be spared.
    """

    batches: list[HostBatch]
    held: HostBatch
    unseen: bool
    apart: bool


@dataclass(frozen=True)
class ShortTraining:
    """A short training at the subject's own rate.

    Attributes:
        trial: the training, measured on the held-out rows.
        held: those rows.
        unseen: whether they are validation rows.
        apart: whether it did not train on them.
        steps: updates asked for.
        margin: two standard errors of the held-out loss; not a number where the training broke down.
    """

    trial: Trial
    held: HostBatch
    unseen: bool
    apart: bool
    steps: int
    margin: float

    @property
    def finished(self) -> bool:
        """Whether all steps were taken and every loss was finite."""
        return self.trial.finite and len(self.trial.losses) == self.steps

    @property
    def loss(self) -> float:
        return self.trial.points[-1][1]

    @property
    def accuracy(self) -> float:
        return self.trial.points[-1][2]

    @property
    def fell(self) -> float:
        """How much the loss fell in the second half, in nats."""
        points = self.trial.points
        return points[-3][1] - self.loss if len(points) >= 3 else float("inf")


@measurement
def rows(bench: Bench) -> Rows:
    """What the short training trains on and is measured on; validation rows where there are any."""
    found = pool(train_epoch(bench), 2048)
    found = found.rows(np.random.default_rng((bench.seed, 41)).permutation(found.shape[0]))
    size, found = _batch_size(bench, found)
    val = val_epoch(bench)
    held = pool(val, 32) if val is not None else found.rows(slice(0, min(16, found.shape[0] // 4)))
    spared = val is None and found.shape[0] >= 2 * size + held.shape[0] and held.shape[0] > 0
    if spared:
        found = found.rows(slice(held.shape[0], None))
    if held.shape[0] == 0:
        held = found.rows(slice(0, 4))
    size = min(size, found.shape[0])
    count = max(1, found.shape[0] // size)
    return Rows(
        [found.rows(slice(i * size, (i + 1) * size)) for i in range(count)],
        held,
        val is not None,
        val is not None or spared,
    )


def _batch_size(bench: Bench, found: HostBatch) -> tuple[int, HostBatch]:
    """Rows of a batch, and all rows cut to a length that is cheap."""
    full, vocab = train_epoch(bench).batches[0].shape[0], bench.subject.vocab_size
    size = full
    while size > 4 and size * found.shape[1] * vocab > _BUDGET:
        size = (size + 1) // 2
    if size * found.shape[1] * vocab > 2 * _BUDGET:
        found = found.cut(max(16, 2 * _BUDGET // (size * vocab)))
    if minimal_batch(bench).shape[0] == full:  # the step insists on full batches, or batches are this small
        size = full
    return size, found


def steps_for(logits: int, work: int) -> int:
    """Updates of the short training: by the sizes at hand alone, so that the machine's load changes no verdict.

    Args:
        logits: of a step.
        work: weights times tokens of a step.
    """
    return 40 if work > _SLOW else 60 if logits > _HEAVY else 100


@measurement
def short_training(bench: Bench) -> ShortTraining:
    """A little real training on fresh batches."""
    material = rows(bench)
    tokens = material.batches[0].inputs.size
    weights = sum(array.size for array in by_path(bench.model().parameters()).values())
    steps = steps_for(tokens * bench.subject.vocab_size, tokens * weights)
    at = sorted({max(1, round(steps * part)) for part in (0.1, 0.25, 0.5, 0.75, 1.0)})
    trial = train(bench, material.batches, steps, measure=material.held, at=at, ramp=_RAMP)
    whole = trial.finite and len(trial.losses) == steps
    margin = _margin(bench, trial, material.held) if whole else float("nan")
    return ShortTraining(trial, material.held, material.unseen, material.apart, steps, margin)


def _margin(bench: Bench, trial: Trial, held: HostBatch) -> float:
    """Two standard errors of the held-out loss, rows being independent."""
    model, device = trial.model, held.rows(slice(0, 32)).device()
    with in_mode(model, training=False):
        losses, _ = token_losses(bench.logits(model, device.inputs), device.targets)
    real = np.array(device.mask) > 0
    means = [float(r[m].mean()) for r, m in zip(np.array(losses), real, strict=True) if m.any()]
    return 2 * float(np.std(means) / np.sqrt(max(len(means) - 1, 1)))


@measurement
def baselines(bench: Bench) -> Baselines:
    """What counts of the training tokens reach on the held-out rows of the short training."""
    batches = train_epoch(bench).batches
    return count_baselines(batches, rows(bench).held, sample(bench), bench.subject.vocab_size)


@measurement
def known_loss(bench: Bench) -> float:
    """Loss of the short training's model on rows that it was trained on."""
    return score(bench, short_training(bench).trial.model, rows(bench).batches[0])[0]


@measurement
def known_unigram(bench: Bench) -> float:
    """What word frequencies alone reach on these rows: a text is no harder or easier because it was held out."""
    known = rows(bench).batches[0]
    return count_baselines(train_epoch(bench).batches, known, sample(bench), bench.subject.vocab_size).unigram


@measurement
def slower(bench: Bench) -> Trial:
    """The short training at a tenth of the rate."""
    return _again(bench, ramp=_RAMP, scale=0.1)


@measurement
def unramped(bench: Bench) -> Trial:
    """The short training with full updates from the start, since a ramp may not suit momentum."""
    return _again(bench)


@measurement
def corrected(bench: Bench) -> Trial | None:
    """The short training with the bias correction that Adam lacks; None where it lacks none."""
    return None if uncorrected_betas(bench) is None else _again(bench, ramp=_RAMP, corrected=True)


@measurement
def plain(bench: Bench) -> Trial:
    """The short training as the subject's own run begins: nothing scaled, no ramp."""
    return _again(bench, plain=True)


@measurement
def longer(bench: Bench) -> Trial:
    """The short training again, three times as long."""
    return _again(bench, times=_LONGER, ramp=_RAMP)


@measurement
def elsewhere(bench: Bench) -> dict[str, float]:
    """Where `short_training`, `slower` and `corrected` end from other first weights, which are the subject's own with
    noise, since a script's weights are drawn only once."""
    changes: dict[str, dict] = {"own": {}, "slower": {"scale": 0.1}}
    if uncorrected_betas(bench) is not None:
        changes["corrected"] = {"corrected": True}
    return {
        name: _again(bench, model=bench.noisy(17, amount=_ELSEWHERE), ramp=_RAMP, **change).end
        for name, change in changes.items()
    }


@measurement
def first_rate(bench: Bench) -> float | None:
    """The rate of the short training's first update, taken once more with a model and an optimiser of its own: it is
    another one where the step counts its calls, whichever optimiser it is given. None where no rate is seen."""
    return train(bench, rows(bench).batches, 1, plain=True).rates[0]


def _again(bench: Bench, *, times: int = 1, **options) -> Trial:
    material, steps = rows(bench), times * short_training(bench).steps
    return train(bench, material.batches, steps, measure=material.held, at=(steps,), **options)


@measurement
def cost_of_a_third(bench: Bench) -> float:
    """How much more loss memorising leaves at about a third of the rate; not a number where it was not tried."""
    losses = {scale: loss for scale, (loss, _) in rate_sweep(bench).by_scale.items()}
    return losses.get(0.3, float("nan")) - losses.get(1.0, float("nan"))
