"""`mlxstories debug`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxstories.cli import completion, so_far, supervision
from mlxstories.cli.compiling import say_of_compiling
from mlxstories.cli.examined import Examined
from mlxstories.cli.fault_list import list_faults
from mlxstories.cli.json_output import write_json
from mlxstories.cli.options import RUN_OR_FILE, given_options, whole_option
from mlxstories.cli.outputs import Outputs
from mlxstories.cli.sections import Sectioned
from mlxstories.cli.types import MOST_SEED, Number, Place
from mlxstories.cli.unexamined import died, not_loaded
from mlxstories.errors import StoriesError

if TYPE_CHECKING:
    from mlxstories.ladder.diagnosis import Diagnosis

RUNGS = ("data", "init", "minimal", "sweep", "short", "trained")
_SECTIONS = {
    "Used most": ("fault", "every", "deep", "rungs", "accept", "stories"),
    "Training scripts": ("module", "steps", "settings", "cell", "follow", "setup"),
    "Results, besides the screen": ("report", "export", "log", "form"),
}


@click.command("debug", cls=Sectioned, sections=_SECTIONS)
@click.argument("file", metavar="[FILE[:NAME]|mlx-lm:NAME|RUN]", type=RUN_OR_FILE, required=False)
@click.argument("arguments", metavar="[-- ARGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "module", metavar="MODULE", help="Run this module under watch, as `python -m` would.")
@whole_option(
    "--steps", default=8, most=10_000, help="Updates that a script makes by itself before the climb."
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Replace a constant that a script assigns, for this run alone; repeatable.",
)
@whole_option(
    "--cell", default=None, help="Of a notebook, the cell whose training is examined.  [default: the first]"
)
@whole_option("--stories", default=4, most=64, help="Stories to memorise.")
@click.option(
    "--break",
    "fault",
    metavar="FAULT",
    help="Plant a fault in the built-in recipe; `list` shows all.",
    shell_complete=completion.among(completion.faults),
)
@click.option(
    "--rung",
    "rungs",
    multiple=True,
    type=click.Choice(RUNGS),
    help="Climb only this rung and those it builds on; repeatable.",
)
@click.option(
    "--accept",
    metavar="CODE",
    multiple=True,
    callback=lambda ctx, option, codes: _acceptable(codes),
    help="Count this error as a warning; repeatable.",
    shell_complete=completion.among(completion.codes),
)
@whole_option("--seed", default=0, least=0, most=MOST_SEED, help="Seed of all that is drawn.")
@click.option(
    "--json",
    "report",
    # resolved before what is examined can change the directory
    type=Place(allow_dash=True, dir_okay=False, resolve_path=True),
    metavar="PATH",
    help="Write the report as JSON; `-` is standard output.",
)
@click.option(
    "--export",
    type=Place(file_okay=False, resolve_path=True),
    metavar="DIR",
    help="Write a figure for each rung that has one.",
)
@click.option(
    "-v",
    "--checks",
    "every",
    is_flag=True,
    help="List every check, and what each skipped one would need.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Then train with model, loss and step exchanged for plain ones, and say which helps.",
)
@click.option(
    "--timeout",
    default=300,
    show_default=True,
    type=Number(0.1),
    help="Give up after this many seconds; --follow has no limit unless this is given.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github"]),
    default="text",
    show_default=True,
    help="With github, print findings as annotations of a workflow too.",
)
@click.option(
    "--sarif",
    "log",
    type=Place(allow_dash=True, dir_okay=False, resolve_path=True),
    metavar="PATH",
    help="Write the findings as SARIF 2.1.0; `-` is standard output.",
)
@click.option(
    "--write-subject",
    "setup",
    type=Place(dir_okay=False, resolve_path=True),
    metavar="PATH",
    help="Write a file with subject() from what was captured of a script, gaps marked, and stop.",
)
@click.option("--follow", is_flag=True, help="Run the script to its end while the cheap checks watch it.")
def command(
    file,
    arguments,
    module,
    steps,
    settings,
    cell,
    stories,
    fault,
    rungs,
    accept,
    seed,
    report,
    export,
    every,
    deep,
    timeout,
    form,
    log,
    setup,
    follow,
):
    """Climb the debugging ladder and name what is wrong with a training setup.

    What to examine (the built-in recipe, if left out):

    \b
    train.py      a training script or a notebook, run under watch
                  with ARGS, as it is
    my_setup.py   a file whose subject(), or NAME(), returns a
                  mlxstories.ladder.Subject
    RUN           the recipe of a run, from random weights
    mlx-lm:NAME   an architecture of mlx-lm, small, with random weights

    Exit code 0: healthy; 1: an error was found; 2: bad usage or input.
    """
    target, *rest = (module, file) if module else (file,)
    given = tuple(part for part in (*rest, *arguments) if part is not None)
    examined = Examined(target, given, bool(module), steps, settings, fault, cell)
    examined.refuse_options_without_effect(given_options())
    if fault == "list":
        list_faults()
        return
    outputs = Outputs(every, export, report, log, form)
    if follow:
        sys.exit(_followed(examined, report, timeout))
    screen = outputs.screen()
    if target is not None and supervision.wanted():
        diagnosis = _supervised(examined.name, timeout)
        screen.console.show_cursor()  # a live table, which hides it, may have been cut off
        replace(outputs, export=None).give(diagnosis, screen, examined.name)
        sys.exit(diagnosis.exit_code)
    from mlxstories.cli.deep import after_climb
    from mlxstories.ladder import diagnose, directory
    from mlxstories.ladder.time_limit import TimeLimitError

    def tell(kind, value):
        so_far.keep(kind, value)
        screen.event(kind, value)

    with directory.kept(), ExitStack() as stack:
        with _loading(examined.name, timeout, report):
            if setup:
                examined.write_subject(setup)
                return
            say_of_compiling(screen.say)
            subject, captured = examined.load(stack, screen, seed)
        for finding in captured.findings if captured is not None else ():
            so_far.keep("finding", finding)
        with screen, supervision.limited(timeout):
            diagnosis = diagnose(
                subject, seed=seed, rungs=rungs or None, stories=stories, accept=accept, on_event=tell
            )
            if captured is not None:
                diagnosis = captured.explained(diagnosis)
        diagnosis, offer = after_climb(diagnosis, subject, screen, deep, seed, timeout, offered=not rungs)
        if captured is not None:
            diagnosis = captured.located(diagnosis)
        with suppress(TimeLimitError), supervision.limited(supervision.GRACE):
            stack.close()  # a script's own code to run at its end, which changes nothing any more
    outputs.give(diagnosis, screen, examined.name, story=target is None and stories == 4, offer=offer)
    sys.exit(diagnosis.exit_code)


def _supervised(name: str, timeout: float) -> Diagnosis:
    """Examine in a process of its own, whose exit code is passed on; the diagnosis where that ends otherwise."""
    with tempfile.TemporaryFile() as found:
        outcome = supervision.run(_words(), timeout, found)
        if isinstance(outcome, int):
            sys.exit(outcome)
        return died(name, outcome, *so_far.kept(found))


def _acceptable(codes: tuple[str, ...]) -> frozenset[str]:
    from mlxstories.findings import acceptable

    return acceptable(codes)


def _words() -> list[str]:
    """The command line, but for the program's name."""
    return shlex.split(click.get_current_context().find_root().obj)[1:]


@contextmanager
def _in_time(name: str, timeout: float) -> Iterator[None]:
    """A time limit whose end is one line, for what is done without a diagnosis."""
    from mlxstories.ladder.time_limit import TimeLimitError

    try:
        with supervision.limited(timeout):
            yield
    except TimeLimitError as error:
        remedy = "raise --timeout, or make a script smaller by --set NAME=VALUE"
        raise StoriesError(f"{name}: {error}; {remedy}") from error


@contextmanager
def _loading(name: str, timeout: float, report: Path | None) -> Iterator[None]:
    """What cannot be loaded gives one line and no diagnosis; a program that reads the findings gets them all the
    same."""
    try:
        with _in_time(name, timeout):
            yield
    except StoriesError as error:
        if report:
            write_json(not_loaded(name, str(error)).to_dict(), report)
        raise


def _followed(examined: Examined, report: Path | None, timeout: float) -> int:
    """Follow a script to its end, which is far away as a rule: the time is limited where that is asked for."""
    if "timeout" not in given_options():
        return examined.follow(report)
    if supervision.wanted():
        with tempfile.TemporaryFile() as found:
            outcome = supervision.run(_words(), timeout, found, patient=True)
        if isinstance(outcome, str):
            raise StoriesError(f"{examined.name} {outcome}")
        return outcome
    with _in_time(examined.name, timeout):
        return examined.follow(report)
