"""The command line: one file a command, found by name so that only the one asked for is loaded."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import importlib
import io
import os
import platform
import re
import shlex
import shutil
import sys
import time

import click

from mlxstories.errors import StoriesError, did_you_mean, one_line, own_arguments

# By name what each is for: help must not import the commands, which import MLX.
COMMANDS = {
    "tour": "Five minutes from a broken recipe to a model that tells stories.",
    "debug": "Find out what is wrong with a training setup, step by step.",
    "train": "Train a model on stories.",
    "sample": "Let a trained model tell stories.",
    "compare": "Compare training recipes fairly, over several seeds.",
    "plot": "Draw the curves of runs.",
    "report": "Make one HTML file that says how a run went.",
    "watch": "Show a report that follows a run while it trains.",
    "export": "Write a trained model for mlx-lm and Hugging Face transformers.",
    "import": "Make an exported model a run again.",
    "data": "Show and count stories; prepare corpora larger than memory.",
    "info": "Show versions, device, BLAS and where data and runs lie.",
}


class _Commands(click.Group):
    """Loads ``mlxstories.cli.<name>`` when the command ``<name>`` is looked up."""

    def main(self, *args, **kwargs):
        _open_what_is_closed()
        if "_MLXSTORIES_COMPLETE" in os.environ:
            importlib.import_module(f"{__name__}.shells")  # which register themselves
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # which Python does too late to say more than a traceback
        except OSError as error:
            if error.filename is not None or error.errno not in _NO_OUTPUT:
                raise
            _give_up_output(error)
        finally:
            try:
                sys.stderr.flush()
            except OSError:
                _discard(sys.stderr)

    def parse_args(self, ctx, args):
        for word in args:
            if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
                raise click.UsageError(
                    f"{word!a} is not UTF-8: give it, or what it names, another name.", ctx
                )
        ctx.obj = shlex.join(["mlxstories", *args])  # the command as typed, for what records it
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx, args):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args and not args[0].startswith("-"):
                raise click.UsageError(
                    f"there is no command {args[0]!r}.{did_you_mean(args[0], COMMANDS)}", ctx
                ) from error
            raise

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        module = "import_" if name == "import" else name  # a keyword names no module
        return importlib.import_module(f"{__name__}.{module}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx):
        try:
            _on_apple_silicon_if_on_a_mac()
            _never_fail_to_print()
            _refuse_a_date_that_is_none()
            with _in_one_line():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # which click would end with 1, as an error that `debug` found
            click.echo("\nStopped.", err=True)
            sys.exit(_INTERRUPTED)
        except _HELP:
            raise
        except click.UsageError as error:
            error.show = functools.partial(_show, error)
            if os.environ.get("MLX_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) != "0":
                from mlxstories.distributed.group import HEAD_START

                time.sleep(HEAD_START)  # a launcher gave all the same command
            raise


# Of what is written to: full, over quota, broken, over the limit of a file's size, closed by its reader.
_NO_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EPIPE)
# As a shell tells of a program that SIGPIPE or SIGINT ended; click's 1 would be an error that `debug` found.
_UNREAD, _INTERRUPTED = 128 + 13, 128 + 2
# Raised where a group is given no command, with its help for a message; click before 8.2 only prints it.
_HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())


def _give_up_output(error: OSError) -> None:
    """Exit code 2 and one line; for a pipe that nobody reads any more, that of SIGPIPE and none."""
    _discard(sys.stdout)
    if error.errno == errno.EPIPE:
        sys.exit(_UNREAD)
    with contextlib.suppress(OSError):
        click.echo(f"Error: cannot write the output: {error.strerror}.", err=True)
    sys.exit(2)


def _discard(stream) -> None:
    """Have what a stream still holds go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_what_is_closed() -> None:
    """A stream that was closed before Python began leads nowhere, and is not missing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115  (for as long as the process)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _never_fail_to_print() -> None:
    """What a terminal's encoding has no sign for is printed as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def _on_apple_silicon_if_on_a_mac() -> None:
    """MLX would say of an Intel Python only that a library does not load."""
    if sys.platform == "darwin" and platform.machine() != "arm64":
        raise click.UsageError(
            f"this Python is built for {platform.machine()}, under Rosetta or on an Intel Mac, and MLX needs Apple "
            "silicon: install an arm64 Python and mlxstories in it (docs/mac.md)."
        )


def _refuse_a_date_that_is_none() -> None:
    """NumPy and matplotlib would end in a traceback."""
    date = os.environ.get("SOURCE_DATE_EPOCH")
    if date is not None and not (date.isascii() and date.isdigit() and len(date) < 12):
        raise click.UsageError(
            f"the variable SOURCE_DATE_EPOCH is {date[:40]!r}: it must be whole seconds since 1970, or not be set."
        )


def _lost() -> bool:
    """Whether the working directory was removed."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _in_one_line():
    """What the user can mend is shown by click, without a traceback."""
    try:
        yield
    except _HELP:
        raise
    except click.UsageError as error:
        error.message = one_line(error.message)
        if isinstance(error, click.NoSuchOption):
            error.possibilities = _like(error)
            if not error.possibilities and error.ctx is not None and error.ctx.command.name == "debug":
                error.message = f"{error.message.rstrip('.')}; {own_arguments()}."
        else:
            error.message += _source(error)
        raise
    except MemoryError as error:
        raise click.UsageError(f"out of memory ({one_line(str(error))}): take less at a time.") from error
    except StoriesError as error:
        raise click.UsageError(_as_typed(str(error))) from error
    except RuntimeError as error:
        if "Failed to compile" in str(error):
            raise click.UsageError(one_line(_no_compiler(error))) from error
        if "filesystem error" in str(error):  # of the kernels that MLX compiles
            raise click.UsageError(
                one_line(f"MLX cannot write to its temporary directory, which TMPDIR names: {error}.")
            ) from error
        if "Symlink loop" not in str(error):  # of Path.resolve() before Python 3.13
            raise
        raise click.UsageError(one_line(str(error))) from error
    except OSError as error:
        if error.filename is None and error.errno == errno.EPIPE:
            _give_up_output(error)
        if error.filename is None and _lost():
            raise click.UsageError("the working directory is gone: change to one that exists.") from error
        if error.filename is None:
            raise
        # a path that cannot even be looked at: too long a name, a folder that may not be read
        raise click.UsageError(one_line(f"{error.filename}: {error.strerror}.")) from error


def _no_compiler(error: RuntimeError) -> str:
    """Why MLX could not compile a kernel, which on a CPU takes g++."""
    if shutil.which("g++") is None:
        return "MLX compiles for the CPU with g++, which is missing: install it (Debian, Ubuntu: sudo apt install g++)."
    return f"MLX compiles for the CPU with g++, which fails here: {error}."


# What options are called elsewhere.
_ELSEWHERE = {
    "--batch": "--batch-size",
    "--context-length": "--context",
    "--d-model": "--dim",
    "--dataset": "--data",
    "--learning-rate": "--lr",
    "--max-length": "--max-tokens",
    "--n-layers": "--layers",
    "--optimiser": "--optimizer",
    "--output": "--to",
    "--temp": "--temperature",
    "--vocabulary": "--vocab-size",
    "--wd": "--weight-decay",
}


def _as_typed(message: str) -> str:
    """A message that begins with the field of a configuration, by the option that set it where one was typed."""
    field, _, rest = message.partition(" ")
    option = "--" + field.rpartition(".")[2].replace("_", "-")
    option = _ELSEWHERE.get(option, option)
    words = shlex.split(click.get_current_context().find_root().obj)
    return f"{option} {rest}" if option in {word.partition("=")[0] for word in words} else message


def _like(error: click.NoSuchOption) -> list[str]:
    """The option of the command that was probably meant."""
    known = [] if error.ctx is None else [name for p in error.ctx.command.params for name in p.opts]
    elsewhere = _ELSEWHERE.get(error.option_name)
    if elsewhere in known:
        return [elsewhere]
    near = difflib.get_close_matches(error.option_name, known, 3, 0.7)
    swapped = [name for name in near if sorted(name) == sorted(error.option_name)]
    return (swapped or near)[:1]


def _source(error: click.UsageError) -> str:
    """ " Did you mean --data tales?" where a command that takes its texts by an option was given them without it."""
    extra = re.fullmatch(r"Got unexpected extra arguments? \((.+)\)", error.message)
    options = [name for p in error.ctx.command.params for name in p.opts] if error.ctx else []
    if extra is None or "--data" not in options:
        return ""
    if os.path.isfile(os.path.join(extra[1], "config.json")) and "--resume" in options:
        run = shlex.quote(extra[1])
        return f". Did you mean --resume {run}, or --from {run}?"
    if os.path.exists(extra[1]):
        return f". Did you mean --data {shlex.quote(extra[1])}?"
    several = all(map(os.path.exists, extra[1].split()))  # what the shell made of a pattern
    return ". Did you mean a pattern in quotes, such as --data 'folder/*.txt'?" if several else ""


def _show(error: click.UsageError, file=None) -> None:
    """As click does, wrapped at a terminal and with the word Error in colour."""
    from mlxstories.cli.text_output import wrapped

    text = io.StringIO()
    click.UsageError.show(error, file=text)
    usage, word, rest = text.getvalue().partition("Error:")
    rest = wrapped(word + rest, stream=file or sys.stderr).removeprefix(word)
    plain = "NO_COLOR" in os.environ
    word = word if plain else click.style(word, fg="red", bold=True)
    click.echo(f"{usage}{word}{rest}", file=file, err=file is None, nl=False)


# \b keeps click from making one paragraph of it.
_FIRST_STEPS = """\b
New here?           mlxstories tour
Texts of your own?  mlxstories train --data FOLDER, then mlxstories sample
Code of your own?   mlxstories debug train.py"""


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_FIRST_STEPS,
)
@click.version_option(package_name="mlxstories")
def main():
    """Train small story models from scratch with MLX, and find out why one is not learning."""
