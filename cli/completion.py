"""What the shell completes beside options and runs: names that are looked up when the Tab key asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from click.shell_completion import CompletionItem


def among(names: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    """A completion with those of ``names()`` that begin as what was typed."""
    return lambda ctx, param, incomplete: [name for name in names() if name.startswith(incomplete)]


def several(names: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    """A completion of the last of several between commas."""

    def complete(ctx, param, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def faults() -> list[str]:
    from mlxstories.faults import FAULTS

    return ["list", *FAULTS]


def codes() -> Iterable[str]:
    from mlxstories.findings import CATALOGUE

    return CATALOGUE


def optimizers() -> Iterable[str]:
    from mlxstories.optim.build import OPTIMIZERS

    return OPTIMIZERS


def schedules() -> Iterable[str]:
    from mlxstories.optim.schedules import SCHEDULES

    return SCHEDULES


def phase_fields() -> list[str]:
    from mlxstories.training.phases import PHASE_1, values

    return [f"{path}=" for path in values(PHASE_1)]


def kinds() -> Iterable[str]:
    from mlxstories.model.config import CHOICES

    return CHOICES["arch"]


def architectures() -> list[str]:
    from mlxstories.model.mlx_lm_arguments import architectures

    return [*kinds(), *(f"mlx-lm:{name}" for name in architectures())]


def sizes() -> Iterable[str]:
    from mlxstories.model import SIZES

    return SIZES


def sources(ctx, param, incomplete: str) -> list[CompletionItem]:
    """stories, tinystories, or the paths of files."""
    named = [CompletionItem(name) for name in ("stories", "tinystories") if name.startswith(incomplete)]
    return [*named, CompletionItem(incomplete, type="file")]
