"""A small reversible change of a setup, and where in it a fault lies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.where.places import own_file

OPTIMIZER = "optimizer"
"""A site's part where its line is not known: what the optimiser was made with, and not the step that uses it."""


class Site(dict):
    """``part`` of the setup and, where known, ``module``, ``file`` and ``line``.

    No `Place`, which editors open: a site becomes one as a finding's ``where`` if its line is known, and words if not.
    """

    def __str__(self) -> str:
        return f"the {self['part']}" + (f", {self['module']}" if "module" in self else "")

    def __hash__(self) -> int:
        return hash(str(self))


def site_of(part: str, function: Callable | None, module: str = "") -> Site:
    """A part with the line at which a function of the user's begins, where that is known."""
    known = Site(part=part, module=module) if module else Site(part=part)
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    if code is None or not own_file(code.co_filename):
        return known
    return Site(**known, file=code.co_filename, line=code.co_firstlineno)


def is_own(thing: object) -> bool:
    """Whether a class, or that of an object, is not one of the library's."""
    cls = thing if isinstance(thing, type) else type(thing)
    return not cls.__module__.startswith("mlx.")


def is_numbered(path: str) -> bool:
    """Whether a module is one of a list, as blocks are."""
    return path.rpartition(".")[2].isdigit()


@dataclass(frozen=True)
class Intervention:
    """One change.

    Attributes:
        name: what is changed, in words that end a sentence "with ...".
        part: of the setup.
        model: changes a fresh model.
        optimizer: changes a fresh optimiser, or None.
        around: a context in which the step is made and the held-out rows are measured.
        scale: factor on each update.
        own_gradient: whether the optimiser gets the gradient of the subject's own loss, taken by us.
        redrawn: whether it draws first weights anew.
        wanted: whether what it removes may be a choice, such as weights of 16 bits, or dropout.
        late: whether it may make a difference only late in training.
        site: where the change is made, if it is in one place.
    """

    name: str
    part: str
    model: Callable[[nn.Module], object] = lambda model: None
    optimizer: Callable[[Optimizer], object] | None = None
    around: Callable[[], AbstractContextManager] = nullcontext
    scale: float = 1.0
    own_gradient: bool = False
    redrawn: bool = False
    wanted: bool = False
    late: bool = False
    site: Site | None = None

    @property
    def may_be_meant(self) -> bool:
        """Whether what it undoes may be a choice: a part drawn anew may merely be of another kind than the one
        there."""
        return self.redrawn or self.wanted
