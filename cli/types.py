"""What options and arguments may be: numbers within bounds, and names that are not empty."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mlxstories.bounds import MOST_WHOLE

MOST_SEED = 2**31 - 1


class _Bounded(click.ParamType):
    """A number from ``least`` to ``most``; no bound is open, so that what is made from it has a size."""

    def __init__(self, least: float = 1, most: float = MOST_WHOLE):
        self.least, self.most = least, most

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not self.least <= number <= self.most:  # as no NaN does
            self.fail(f"{number} is not in the range from {self.least:,} to {self.most:,}.", param, ctx)
        return number


class Whole(_Bounded, click.types.IntParamType):
    """A whole number."""


class Number(_Bounded, click.types.FloatParamType):
    """Any number but NaN."""


class _Named(click.ParamType):
    """A name, of which an empty one, as of a shell variable that is not set, would mean something else."""

    def convert(self, value, param, ctx):
        if value in ("", b""):
            self.fail("it is empty: give a name, or leave it out.", param, ctx)
        if "\0" in str(value):
            self.fail("it holds a null character, as no name of a file can.", param, ctx)
        return super().convert(value, param, ctx)


class Name(_Named, click.types.StringParamType):
    """Text that names something."""


class Listed(click.ParamType):
    """Values separated by commas."""

    name = "list"

    def __init__(self, item: click.ParamType):
        self.item = item

    def convert(self, value, param, ctx):
        parts = value.split(",") if isinstance(value, str) else value
        return [self.item.convert(part.strip(), param, ctx) for part in parts]


class Place(_Named, click.Path):
    """The path of a file or directory."""

    def __init__(self, **options):
        super().__init__(path_type=Path, **options)


class RunType(Name):
    """A run's name or directory; the shell completes the names under ``--runs``, else paths of kind ``other``."""

    name = "run"

    def __init__(self, other: str):
        self.other = other

    def shell_complete(self, ctx, param, incomplete):
        folder = Path(ctx.params.get("runs") or "runs")
        names = sorted(path.parent.name for path in folder.glob("*/config.json"))
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type=self.other)]
