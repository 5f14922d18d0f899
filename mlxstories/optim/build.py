"""From a configuration to an optimiser: which rule, and which parameters it decays."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from mlx.optimizers import MultiOptimizer, Optimizer

from mlxstories.bounds import check_choice, check_flag, check_number
from mlxstories.errors import StoriesError
from mlxstories.optim.muon import POLYNOMIALS, Muon
from mlxstories.optim.optimizers import SGD, AdamW, Lion, NAdamW, check_betas
from mlxstories.optim.schedules import Schedule, constant

OPTIMIZERS = ("adamw", "adam", "nadamw", "lion", "muon", "sgd")
DECAYS = ("matrices", "all")

# As they are called here and in the architectures of mlx-lm.
_EMBEDDINGS = {"embed", "position", "embed_tokens", "embedding", "embeddings", "tok_embeddings", "embed_in",
               "word_embeddings", "wte", "wpe", "embed_tokens_per_layer", "token_embeddings",
               "position_embedding_table"}  # fmt: skip
_TAPS = {"taps"}  # of a convolution: each feature's own numbers, so no matrix
_HEADS = {"head_projection", "lm_head", "embed_out", "output"}


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, and its constants.

    Attributes:
        name: "adamw", "adam" (coupled decay: L2), "nadamw", "lion", "sgd" (momentum, coupled decay), or
            "muon" for the hidden matrices with AdamW for all other parameters.
        learning_rate: the peak that the schedule's shape is scaled to.
        rest_learning_rate: "muon" only: peak of AdamW's share, of the same shape; None takes
            ``learning_rate``.
        betas: decay of the first and second moment, [0, 1).
        eps: added to Adam's denominator.
        weight_decay: times the learning rate when decoupled; added to the gradient times w when coupled.
        decay: "matrices" spares norms, biases and embeddings, "all" spares nothing.
        bias_correction: "adamw" and "adam": correct the moments for their start at zero.
        amsgrad: "adamw" and "adam": divide by the greatest second moment so far.
        momentum: "muon" and "sgd", [0, 1).
        orthogonalizer: "muon" only: the polynomials that make its momentum orthogonal (`muon.POLYNOMIALS`).
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    rest_learning_rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: str = "matrices"
    bias_correction: bool = True
    amsgrad: bool = False
    momentum: float = 0.95
    orthogonalizer: str = "jordan"

    def __post_init__(self):
        check_choice("optimizer", self.name, OPTIMIZERS)
        check_number("learning_rate", self.learning_rate, above=0)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise StoriesError(f"betas must be two numbers; got {self.betas!r}.")
        object.__setattr__(self, "betas", tuple(self.betas))
        check_betas(self.betas)
        check_number("eps", self.eps, at_least=0)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_choice("decay", self.decay, DECAYS)
        check_number("momentum", self.momentum, at_least=0, below=1)
        for name in ("bias_correction", "amsgrad"):
            check_flag(name, getattr(self, name))
        if self.rest_learning_rate is not None:
            check_number("rest_learning_rate", self.rest_learning_rate, above=0)
            self._only_for("rest_learning_rate", "muon")
        check_choice("orthogonalizer", self.orthogonalizer, POLYNOMIALS)
        if self.orthogonalizer != "jordan":
            self._only_for("an orthogonalizer", "muon")
        if self.amsgrad:
            self._only_for("amsgrad", "adamw", "adam")
        if not self.bias_correction:
            self._only_for("bias_correction = false", "adamw", "adam")

    def _only_for(self, option: str, *names: str) -> None:
        if self.name not in names:
            raise StoriesError(f"{option} belongs to {' and '.join(names)}; the optimizer is {self.name}.")


class Groups(MultiOptimizer):
    """Several optimisers that divide the parameters among them; each parameter goes to the first that accepts it."""

    @property
    def step(self) -> mx.array:
        """Updates done, the same for every member."""
        return self.optimizers[0].step


def build_optimizer(config: OptimizerConfig, schedule: Schedule | None = None) -> Optimizer:
    """The optimiser of a configuration, its rate on ``schedule`` (constant when None).

    Parameters share out by name and shape as in :func:`is_decayed` and :func:`is_hidden_matrix`. With two
    groups of different peak the schedule's shape is that of both.
    """
    schedule = schedule or constant(config.learning_rate)
    if config.name != "muon":
        return _decay_groups(lambda decay: _rule(config, schedule, decay), config)
    scale = (config.rest_learning_rate or config.learning_rate) / config.learning_rate
    rest = _decay_groups(lambda decay: _adamw(config, lambda step: scale * schedule(step), decay), config)
    members = rest.optimizers if isinstance(rest, Groups) else [rest]
    filters = rest.filters[:-1] if isinstance(rest, Groups) else []
    muon = Muon(schedule, config.momentum, config.weight_decay, config.orthogonalizer)
    return Groups([muon, *members], [is_hidden_matrix, *filters])


def is_decayed(path: str, array: mx.array) -> bool:
    """Whether weight decay of "matrices" applies: a matrix that is not an embedding, nor a convolution's taps."""
    return array.ndim >= 2 and not (_EMBEDDINGS | _TAPS) & set(path.split("."))


def is_hidden_matrix(path: str, array: mx.array) -> bool:
    """Whether Muon applies: a matrix that is neither an embedding, a convolution's taps nor the output head."""
    return array.ndim == 2 and not (_EMBEDDINGS | _HEADS | _TAPS) & set(path.split("."))


def _decay_groups(rule, config: OptimizerConfig) -> Optimizer:
    if config.weight_decay == 0 or config.decay == "all":
        return rule(config.weight_decay)
    return Groups([rule(config.weight_decay), rule(0.0)], [is_decayed])


def _rule(config: OptimizerConfig, schedule: Schedule, weight_decay: float) -> Optimizer:
    if config.name == "nadamw":
        return NAdamW(schedule, config.betas, config.eps, weight_decay)
    if config.name == "lion":
        return Lion(schedule, config.betas, weight_decay)
    if config.name == "sgd":
        return SGD(schedule, config.momentum, weight_decay)
    return _adamw(config, schedule, weight_decay)


def _adamw(config: OptimizerConfig, schedule: Schedule, weight_decay: float) -> Optimizer:
    return AdamW(
        schedule,
        config.betas,
        config.eps,
        weight_decay,
        decoupled=config.name != "adam",
        bias_correction=config.bias_correction,
        amsgrad=config.amsgrad,
    )
