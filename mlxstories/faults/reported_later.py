"""Faults after the second to the sixth set of public reports, of kinds that the first had not brought up."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.nn.utils import checkpoint

from mlxstories.batch import Batch
from mlxstories.data.packing import Documents, Rows
from mlxstories.faults.fault import Faults, change, minimising, phase
from mlxstories.faults.model import rebuilt
from mlxstories.faults.optimisation import mean_nats, stepping
from mlxstories.faults.recipe import Recipe, evaluate, padded_rows
from mlxstories.model import ModelConfig, Transformer

FAULTS = Faults("reported")

HEAD = 40  # tokens


class Recomputed(nn.Module):
    """A branch with dropout behind it, computed a second time on the way back."""

    def __init__(self, inner: nn.Module, share: float = 0.3):
        super().__init__()
        self.inner, self.drop = inner, nn.Dropout(share)

    def __call__(self, x):
        return checkpoint(self, lambda x: self.drop(self.inner(x)))(x)


def recomputed(model: Transformer, config: ModelConfig) -> None:
    for block in model.blocks:
        block.feed_forward = Recomputed(block.feed_forward)


def heads_of(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
    """Of each story the first 40 tokens."""
    if rng is None:
        return padded_rows(documents, context, None)
    stories = (documents[story] for story in range(len(documents)))
    rows = np.stack([story[: HEAD + 1] for story in stories if len(story) > HEAD]).astype(np.int32)
    rows = rows[rng.permutation(len(rows))]
    nought = np.zeros((len(rows), HEAD), np.int32)
    return Rows(rows[:, :-1], rows[:, 1:], np.ones(nought.shape, np.float32), nought, nought)


def commonest_left_out(recipe: Recipe) -> Recipe:
    """Takes the commonest word for padding."""
    word = int(np.bincount(np.concatenate([recipe.train[story] for story in range(64)])).argmax())

    def loss(model: nn.Module, batch: Batch) -> mx.array:
        return mean_nats(model, batch._replace(mask=batch.mask * (batch.targets != word)))

    return minimising(loss)(recipe)


def first_places_counted(model: nn.Module, batch: Batch) -> mx.array:
    """Divides by the tokens of the rows, of which each has one more than targets."""
    tokens = batch.mask.sum()
    return mean_nats(model, batch) * tokens / (tokens + len(batch.mask))


def summed(recipe: Recipe) -> Recipe:
    added = minimising(lambda model, batch: mean_nats(model, batch) * batch.mask.sum())(recipe)
    return phase(clip_norm=None)(added)


def partly_late(model: nn.Module, batch: Batch) -> mx.array:
    """A third asks for the token that was just read, as a teacher's distributions do that are a place late."""
    return (2 * mean_nats(model, batch) + mean_nats(model, batch._replace(targets=batch.inputs))) / 3


def rolled_over_rows(model: nn.Module, batch: Batch) -> mx.array:
    """Targets are the rows in one line, rolled by one: at its end each asks for the beginning of the next."""
    ahead = mx.roll(batch.inputs.reshape(-1), -1).reshape(batch.inputs.shape)
    return mean_nats(model, batch._replace(targets=ahead))


def warmed_anew(phase, updates: int) -> optim.Optimizer:
    """A warmup over 500 updates that counts those of an epoch, of which there are 125."""
    return optim.AdamW(lambda step: 1e-3 * mx.minimum((step % 125 + 1) / 500, 1), bias_correction=True)


def smoothed_without_share(model: nn.Module, batch: Batch) -> mx.array:
    """Smoothing takes a tenth from the target, and gives a whole one to all tokens."""
    logs = nn.log_softmax(model(batch.inputs).astype(mx.float32), axis=-1)
    target = mx.take_along_axis(logs, batch.targets[..., None], axis=-1)[..., 0]
    return -((0.9 * target + logs.mean(-1)) * batch.mask).sum() / batch.mask.sum()


def shifted_norms(model: Transformer, config: ModelConfig) -> None:
    """Gains begin at 0 and shifts at 1."""
    for block in model.blocks:
        norm = block.feed_forward_norm = nn.LayerNorm(config.dim)
        norm.weight, norm.bias = mx.zeros_like(norm.weight), mx.ones_like(norm.bias)


class Plateau(optim.AdamW):
    """Halves the rate when the mean of 10 losses is no ``better`` than the best so far."""

    def __init__(self, better):
        super().__init__(1e-3, bias_correction=True)
        self.better, self.best, self.seen = better, None, []

    def told(self, loss: float) -> None:
        self.seen.append(loss)
        if len(self.seen) == 10:
            mean, self.seen = sum(self.seen) / 10, []
            if self.best is None or self.better(mean, self.best):
                self.best = mean
            else:
                self.learning_rate = self.learning_rate / 2


def waiting_for(better):
    """A plant of a rate that is halved on a plateau."""

    def step(model, optimizer, batch, recipe):
        loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
        optimizer.update(model, gradients)
        optimizer.told(loss.item())
        return loss

    built = change(build_optimizer=lambda phase, updates: Plateau(better))
    return lambda recipe: built(stepping(step)(recipe))


class Running:
    """A validation whose figures are means over it and, unless it is ``reset``, all before it."""

    def __init__(self, reset: bool):
        self.reset, self.kept = reset, []

    def __call__(self, model, batches) -> dict[str, float]:
        self.kept = [*([] if self.reset else self.kept), evaluate(model, batches)]
        return {name: sum(one[name] for one in self.kept) / len(self.kept) for name in self.kept[0]}


FAULTS.add(
    "dropout-drawn-twice",
    "backward-mismatch",
    "a checkpointed branch draws its dropout anew when it is computed again on the way back",
    rebuilt(recomputed),
)
FAULTS.add(
    "heads-of-stories",
    "texts-never-seen",
    "of each story the first 40 tokens are kept, and the rest is thrown away",
    change(arrange=heads_of),
)
FAULTS.add(
    "commonest-word-left-out",
    "wrong-loss",
    "the loss leaves out the commonest word, whose id was taken for that of padding",
    commonest_left_out,
)
FAULTS.add(
    "first-places-counted",
    "wrong-normalisation",
    "the loss is divided by the targets and one more for each row",
    minimising(first_places_counted),
    severity="warning",
)


FAULTS.add(
    "tokens-summed",
    "wrong-normalisation",
    "the losses of a batch's tokens are added, and not divided by their number",
    summed,
    severity="warning",
)
FAULTS.add(
    "loss-partly-late",
    "wrong-loss",
    "a third of the loss asks for the token that was just read",
    minimising(partly_late),
)
FAULTS.add(
    "rolled-over-rows",
    "wrong-loss",
    "the loss rolls rows in one line, over their ends (verl issue 6475)",
    minimising(rolled_over_rows),
)
FAULTS.add(
    "warmup-each-epoch",
    "schedule-out-of-step",
    "the warmup counts the updates of an epoch, and begins again with each",
    change(build_optimizer=warmed_anew),
    severity="warning",
)
FAULTS.add(
    "smoothed-without-share",
    "wrong-loss",
    "label smoothing by 0.1 gives a whole one, not a tenth, to all tokens (ConvE issue 55)",
    minimising(smoothed_without_share),
)
FAULTS.add(
    "norms-shift-alone",
    "bad-initialization",
    "gains of layer norms begin at 0 and their shifts at 1 (objax pull 94)",
    rebuilt(shifted_norms),
)
FAULTS.add(
    "plateau-of-a-rising-loss",
    "schedule-out-of-step",
    "the rate is halved whenever the loss does not rise (selene issue 115)",
    waiting_for(lambda new, best: new > best),
    severity="warning",
)
FAULTS.add(
    "validation-never-reset",
    "metric-mismatch",
    "validation averages over all validations so far (ludwig pull 1659)",
    lambda recipe: change(evaluate=Running(reset=False))(recipe),
)
