"""What a healthy twin is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mlxstories.faults.recipe import Recipe

Plant = Callable[[Recipe], Recipe]


@dataclass(frozen=True)
class Twin:
    """A sound setup that resembles a fault.

    Attributes:
        code: the finding that would wrongly accuse it, a key of the catalogue.
        name: what it is called.
        description: what is unusual about it and right all the same.
        plant: built-in recipe to twin.
    """

    code: str
    name: str
    description: str
    plant: Plant


class Twins(list[Twin]):
    """Twins of a part of the catalogue, in the order of definition."""

    def add(self, code: str, name: str, description: str, *plants: Plant) -> None:
        """A twin made by these plants, one after the other."""

        def plant(recipe: Recipe) -> Recipe:
            for each in plants:
                recipe = each(recipe)
            return recipe

        self.append(Twin(code, name, description, plant))


def without_floor(recipe: Recipe) -> Recipe:
    """The entropy of the stories is not that of stories retold."""
    return replace(recipe, floor=None)
