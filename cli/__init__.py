"""The command line: one file a command, found by name so that only the one asked for is loaded."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shlex
import sys
import time

import click

COMMANDS = (
    "tour",
    "debug",
    "train",
    "sample",
    "compare",
    "plot",
    "report",
    "watch",
    "export",
    "import",
    "data",
    "info",
)


class _Commands(click.Group):
    """Loads ``mlxstories.cli.<name>`` when the command ``<name>`` is looked up."""

    def parse_args(self, ctx, args):
        for word in args:
            if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
                raise click.UsageError(
                    f"{word!a} is not UTF-8: give it, or what it names, another name.", ctx
                )
        ctx.obj = shlex.join(["mlxstories", *args])  # the command as typed, for what records it
        return super().parse_args(ctx, args)

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        module = "import_" if name == "import" else name  # a keyword names no module
        return importlib.import_module(f"{__name__}.{module}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, _SUMMARIES[name]) for name in COMMANDS])

    def invoke(self, ctx):
        try:
            _on_apple_silicon_if_on_a_mac()
            with _in_one_line():
                return super().invoke(ctx)
        except click.UsageError:
            if os.environ.get("MLX_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) != "0":
                from mlxstories.distributed.group import HEAD_START

                time.sleep(HEAD_START)  # a launcher gave all the same command
            raise


def _on_apple_silicon_if_on_a_mac() -> None:
    """MLX would say of an Intel Python only that a library does not load."""
    if sys.platform == "darwin" and platform.machine() != "arm64":
        raise click.UsageError(
            f"this Python is built for {platform.machine()}, under Rosetta or on an Intel Mac, and MLX needs Apple "
            "silicon: install an arm64 Python and mlxstories in it (docs/mac.md)."
        )


@contextlib.contextmanager
def _in_one_line():
    """What the user can mend is shown by click, without a traceback."""
    from mlxstories.errors import StoriesError, one_line

    try:
        yield
    except click.UsageError as error:
        error.message = one_line(error.message)
        raise
    except MemoryError as error:
        raise click.UsageError(f"out of memory ({one_line(str(error))}): take less at a time.") from error
    except StoriesError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        # a path that cannot even be looked at: too long a name, a folder that may not be read
        raise click.UsageError(f"{error.filename}: {error.strerror}.") from error


# Help must not import the commands, which import MLX, so their one-line summaries stand here.
_SUMMARIES = {
    "tour": "Five minutes from a broken recipe to a model that tells stories.",
    "debug": "Climb the debugging ladder and name what is wrong with a training setup.",
    "train": "Train a model on stories.",
    "sample": "Let a trained model tell stories.",
    "compare": "Compare training recipes fairly, over seeds, and say why they differ.",
    "plot": "Draw the curves of runs.",
    "report": "Make one HTML file that says how a run went.",
    "watch": "Show that file live while a run trains.",
    "export": "Write a trained model for mlx-lm and Hugging Face transformers.",
    "import": "Make an exported model a run again.",
    "data": "Show stories and what is known about them; prepare corpora larger than memory.",
    "info": "Show versions, device, BLAS and where data and runs lie.",
}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlxstories")
def main():
    """Train small story models from scratch with MLX, and find out why one is not learning."""
