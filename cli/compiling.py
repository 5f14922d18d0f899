"""Why the first start takes long."""

from __future__ import annotations

from collections.abc import Callable


def say_of_compiling(say: Callable[[str], None]) -> None:
    """Say so where MLX is about to compile all that it runs."""
    from mlxstories.backend import kernels

    if kernels.compiles_anew():
        say("The first start: MLX compiles for this CPU with g++, which takes up to a minute, and only once.")
