"""Train a setup with its parts exchanged for known-good ones, on the same batches: which exchange closes the gap?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.exchange.dropping import dropped_share
from mlxstories.ladder.exchange.material import material, plain_loss
from mlxstories.ladder.exchange.order import shuffled
from mlxstories.ladder.exchange.reference import PlainDecoder, Shape, shape_of
from mlxstories.ladder.exchange.training import (
    Clock,
    Loss,
    Training,
    own_optimizer,
    own_step,
    plain_optimizer,
    plain_step,
)
from mlxstories.ladder.exchange.unseen import rows_of_all_texts
from mlxstories.trees import by_path

AS_IS, STEP, LOSS, ALL = "as it is", "plain step", "plain step and loss", "all plain"
SHUFFLED, WHOLE = "rows shuffled anew", "rows of all texts"
AROUND = {"data": (AS_IS, (SHUFFLED, WHOLE)), "step": (AS_IS, (STEP,)), "loss": (STEP, (LOSS,))}
"""Parts around the model, the training before the exchange of each, and those after it, of which the best counts."""

# that a reference may have at a width of 64, and inversely for others (Yang et al. 2022)
_RATES = (1e-3, 3e-3)
_USUAL_WIDTH = 64
_RACED = 0.25  # of the updates, after which the better rate goes on alone
_NEAR = 0.02  # a gap of less says that both parts between are sound
_SEED_NOISE = 0.006  # of the loss: what another seed of the first weights moves it, measured on sound setups
_CLOSE = 4.0  # standard errors between a gap and a margin, within which a second seed is asked

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Gap:
    """How much less loss an exchange leaves, as a share of the loss it leaves.

    Attributes:
        share: (loss before - loss after) / loss after.
        error: its standard error, of rows and of seeds.
    """

    share: float
    error: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.share - 2 * self.error

    @property
    def high(self) -> float:
        return self.share + 2 * self.error

    def near(self, margin: float) -> bool:
        """Whether another seed might put it on the other side of ``margin``."""
        return np.isfinite([self.share, self.error]).all() and abs(self.share - margin) < _CLOSE * self.error

    def beyond(self, other: Gap) -> Gap:
        """By how much it exceeds another gap, counting only what is above 0."""
        if other.share <= 0:
            return self
        return Gap(self.share - other.share, float(np.hypot(self.error, other.error)))

    def mean(self, other: Gap) -> Gap:
        """Of two seeds; its error is also that of the mean of two which differ so."""
        within = float(np.hypot(self.error, other.error)) / 2
        return Gap((self.share + other.share) / 2, max(within, abs(self.share - other.share) / 2))


def gap(before: Training, after: Training, margin: float | None = None) -> Gap:
    """Between two trainings; where it is close to ``margin``, of two seeds.

    Rows are noise, and so are first weights where the two do not start from the same ones.
    """
    first = _gap(before, after)
    if margin is None or not first.near(margin):
        return first
    return first.mean(_gap(before.again(), after.again()))


def _gap(before: Training, after: Training) -> Gap:
    if not np.isfinite(after.loss):
        return Gap(0.0, float("inf"))
    if not np.isfinite(before.loss):
        return Gap(float("inf"), 0.0)
    rows = before.measured.error_beside(after.measured) / after.loss
    seeds = _SEED_NOISE * np.sqrt(2) if before.redrawn != after.redrawn else 0.0
    return Gap(before.loss / after.loss - 1, float(np.hypot(rows, seeds)))


@dataclass
class Exchange:
    """The trainings made so far, and what they say.

    Attributes:
        runs: by `AS_IS`, `STEP`, `LOSS` and `ALL`; each exchanges one part more than the one before. And by `SHUFFLED`
            and `WHOLE`, which are as it is but for the data.
        rates: of the plain step, in `LOSS` and `ALL`.
        left: trainings of these at other rates, which were behind early on.
    """

    bench: Bench
    clock: Clock = field(default_factory=Clock)
    tell: Progress = lambda _: None
    runs: dict[str, Training] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    left: dict[str, dict[float, Training]] = field(default_factory=dict)

    @cached_property
    def shape(self) -> Shape:
        """Of the plain decoder."""
        longest = max(batch.shape[1] for batch in material(self.bench).batches)
        shape = shape_of(self.bench.model(), self.bench.subject.vocab_size, longest)
        return replace(shape, dropped=dropped_share(self.bench))

    @property
    def updates(self) -> int:
        return material(self.bench).updates

    @property
    def start(self) -> float:
        """The held-out loss before any training."""
        return self.runs[AS_IS].curve[0][1]

    @property
    def own(self) -> Training:
        """The better of the trainings of the subject's own model: a step of its own may suit it best."""
        return min((self.runs[AS_IS], self.runs[LOSS]), key=lambda run: run.loss)

    def of_part(self, part: str) -> tuple[Training, Training] | None:
        """The trainings before and after the exchange of a part, where both were made."""
        if part == "model":
            return (self.own, self.runs[ALL]) if ALL in self.runs else None
        before, after = AROUND.get(part, ("", ()))
        made = [self.runs[name] for name in after if name in self.runs]
        if before not in self.runs or not made:
            return None
        return self.runs[before], min(made, key=lambda run: run.loss)

    def gap_of(self, part: str, margin: float | None = None) -> Gap | None:
        """The gap that the exchange of a part leaves, where both trainings were made; see `gap`."""
        made = self.of_part(part)
        return gap(*made, margin) if made is not None else None

    def go(self) -> Exchange:
        """Make the trainings, as many as are needed to tell the parts apart."""
        self._run(AS_IS, self.own_setup)
        for name, drawn in ((SHUFFLED, shuffled), (WHOLE, rows_of_all_texts)):
            if (batches := drawn(self.bench)) is not None:
                self._run(name, self.own_setup, batches)
        self._raced(LOSS, self.own_model_by)
        if gap(self.runs[AS_IS], self.runs[LOSS]).share > _NEAR:
            if all(self.same_loss.values()):
                self.runs[STEP] = self.runs[LOSS]
            else:
                self._run(STEP, partial(self.own_model_by, rate=self.rates[LOSS], loss=self.bench.loss))
        self._raced(ALL, self.plain_model_by, redrawn=True)
        return self

    def own_setup(self, seed: int):
        """Model, optimiser and step of the subject."""
        return self.bench.model(seed), own_optimizer(self.bench), own_step(self.bench)

    def own_model_by(self, seed: int, rate: float, loss: Loss | None = None):
        """The subject's model, trained by the plain step and, unless another is given, the plain loss."""
        loss = loss or plain_loss
        return self.bench.model(seed), plain_optimizer(rate), plain_step(self.bench, loss)

    def plain_model_by(self, _: int, rate: float):
        """The plain decoder, drawn from the state as it is, by plain step and plain loss."""
        return PlainDecoder(self.shape), plain_optimizer(rate), plain_step(self.bench, plain_loss)

    def _run(self, name: str, make: Callable, batches: list[HostBatch] | None = None) -> None:
        self.tell(name)
        self.runs[name] = Training(self.bench, name, make, self.clock, batches=batches).advance()

    def _raced(self, name: str, make: Callable[..., tuple], *, redrawn: bool = False) -> None:
        """Train at several rates for a while, then go on with the best of them."""
        self.tell(name)
        rates = [rate * _USUAL_WIDTH / self.shape.width for rate in _RATES]
        runs = {
            rate: Training(self.bench, name, partial(make, rate=rate), self.clock, redrawn=redrawn).advance(
                _RACED
            )
            for rate in rates
        }
        best = self.rates[name] = min(runs, key=lambda rate: runs[rate].loss)
        self.runs[name] = runs.pop(best).advance()
        self.left[name] = runs

    def at_any_rate(self, name: str) -> None:
        """Continue the trainings that were dropped, too, since what leads early on may get stuck later."""
        for rate, run in self.left.pop(name, {}).items():
            if run.advance().loss < self.runs[name].loss:
                self.runs[name], self.rates[name] = run, rate

    @cached_property
    def same_loss(self) -> dict[bool, bool]:
        """Whether the subject's own loss has the gradient of the plain one, in training mode and in evaluation mode:
        where it has in both, no training need tell them apart."""
        found = material(self.bench).batches
        return {
            training: all(self._same_gradient(found[i], training) for i in (0, len(found) // 2))
            for training in (True, False)
        }

    def _same_gradient(self, batch: HostBatch, training: bool) -> bool:
        model = self.bench.model()
        model.train(training)
        slopes = []
        for loss in (self.bench.loss, plain_loss):
            self.bench.seed_all(self.bench.seed)  # both draw the same dropout
            with self.bench.calling("loss"):
                _, slope = nn.value_and_grad(model, lambda m, loss=loss: loss(m, batch))(model)
            slopes.append(
                np.concatenate([np.array(g.astype(mx.float32)).ravel() for g in by_path(slope).values()])
            )
        own, plain = slopes
        return bool(np.linalg.norm(own - plain) < 1e-3 * np.linalg.norm(plain))
