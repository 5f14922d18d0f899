"""What a planted fault is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlxstories.batch import Batch
from mlxstories.faults.recipe import Recipe
from mlxstories.training.losses import next_token_by_logits


@dataclass(frozen=True)
class Fault:
    """A realistic mistake, planted by changing the recipe in one place.

    Attributes:
        name: as given to ``--break``.
        code: the finding that names it, a key of the catalogue.
        description: what was done wrong, one sentence.
        plant: healthy recipe to faulty recipe.
        group: part of the catalogue that it belongs to.
        severity: of the finding; a setup with a "warning" works, though not as well as it could.
    """

    name: str
    code: str
    description: str
    plant: Callable[[Recipe], Recipe]
    group: str
    severity: str = "error"


class Faults(list[Fault]):
    """The faults of a part of the catalogue; collects them in the order of definition."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def add(
        self,
        name: str,
        code: str,
        description: str,
        plant: Callable[[Recipe], Recipe],
        *,
        severity: str = "error",
    ) -> None:
        self.append(Fault(name, code, description, plant, self.name, severity))

    def planted(self, name: str, code: str, description: str) -> Callable:
        """Decorator of a plant."""

        def register(plant: Callable[[Recipe], Recipe]) -> Callable[[Recipe], Recipe]:
            self.add(name, code, description, plant)
            return plant

        return register


def change(**parts) -> Callable[[Recipe], Recipe]:
    """A plant that replaces these parts of the recipe. Another model is trained by its logits, where its fault
    may lie."""
    if "build_model" in parts:
        parts.setdefault("objective", next_token_by_logits)
    return lambda recipe: dataclasses.replace(recipe, **parts)


def minimising(loss: Callable[[nn.Module, Batch], mx.array]) -> Callable[[Recipe], Recipe]:
    """A plant that minimises another loss: (model, batch) -> scalar."""

    def objective(model, batch, key=None, label_smoothing=0.0):
        tokens = batch.mask.sum()
        total = loss(model, batch) * tokens
        return total, tokens, mx.zeros(()), mx.stop_gradient(total)

    return change(objective=objective)


def shape(**fields) -> Callable[[Recipe], Recipe]:
    """A plant that changes the model's configuration."""
    return lambda recipe: dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, **fields))


def phase(**parts) -> Callable[[Recipe], Recipe]:
    """A plant that replaces fields of the phase."""
    return lambda recipe: dataclasses.replace(recipe, phase=dataclasses.replace(recipe.phase, **parts))


def optimizer(**fields) -> Callable[[Recipe], Recipe]:
    """A plant that replaces fields of the phase's optimiser."""
    return lambda recipe: phase(optimizer=dataclasses.replace(recipe.phase.optimizer, **fields))(recipe)
