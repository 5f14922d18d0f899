"""What a planted fault is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from mlxstories.faults.recipe import Recipe


@dataclass(frozen=True)
class Fault:
    """A realistic mistake, planted by changing the recipe in one place.

    Attributes:
        name: as given to ``--break``.
        code: the finding that names it, a key of the catalogue.
        description: what was done wrong, one sentence.
        plant: healthy recipe to faulty recipe.
        group: part of the catalogue that it belongs to.
    """

    name: str
    code: str
    description: str
    plant: Callable[[Recipe], Recipe]
    group: str


class Group(list[Fault]):
    """The faults of a part of the catalogue; collects them in the order of definition."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def add(self, name: str, code: str, description: str, plant: Callable[[Recipe], Recipe]) -> None:
        self.append(Fault(name, code, description, plant, self.name))

    def planted(self, name: str, code: str, description: str) -> Callable:
        """Decorator of a plant."""

        def register(plant: Callable[[Recipe], Recipe]) -> Callable[[Recipe], Recipe]:
            self.add(name, code, description, plant)
            return plant

        return register


def change(**parts) -> Callable[[Recipe], Recipe]:
    """A plant that replaces these parts of the recipe."""
    return lambda recipe: dataclasses.replace(recipe, **parts)


def shape(**fields) -> Callable[[Recipe], Recipe]:
    """A plant that changes the model's configuration."""
    return lambda recipe: dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, **fields))


def phase(**parts) -> Callable[[Recipe], Recipe]:
    """A plant that replaces fields of the phase."""
    return lambda recipe: dataclasses.replace(recipe, phase=dataclasses.replace(recipe.phase, **parts))


def optimizer(**fields) -> Callable[[Recipe], Recipe]:
    """A plant that replaces fields of the phase's optimiser."""
    return lambda recipe: phase(optimizer=dataclasses.replace(recipe.phase.optimizer, **fields))(recipe)
