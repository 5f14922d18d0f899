"""`mlxstories debug`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from mlxstories.cli.options import RUN_OR_FILE
from mlxstories.cli.screen import Ladder
from mlxstories.cli.types import Number, Place
from mlxstories.cli.written import write_report

RUNGS = ("data", "init", "minimal", "sweep", "short", "trained")


@click.command("debug")
@click.argument("file", metavar="[FILE[:NAME]|mlx-lm:NAME|RUN]", type=RUN_OR_FILE, required=False)
@click.argument("arguments", metavar="[-- ARGS]", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "module", metavar="MODULE", help="Run this module under watch, as `python -m` would.")
@click.option(
    "--steps",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Updates of its own that a script makes before the climb.",
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Replace a constant that a script assigns, for this run alone; repeatable.",
)
@click.option(
    "--stories", default=4, show_default=True, type=click.IntRange(1, 64), help="Stories to memorise."
)
@click.option(
    "--break", "fault", metavar="FAULT", help="Plant a fault in the built-in recipe; `list` shows all."
)
@click.option(
    "--rung",
    "rungs",
    multiple=True,
    type=click.Choice(RUNGS),
    help="Climb only this one and those it builds on; repeatable.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**31 - 1),
    help="Seed of all that is drawn.",
)
@click.option(
    "--json",
    "report",
    type=Place(allow_dash=True, resolve_path=True),  # before what is examined can change the directory
    metavar="PATH",
    help="Write the report as JSON; `-` is standard output.",
)
@click.option(
    "--export",
    type=Place(resolve_path=True),
    metavar="DIR",
    help="Write a figure for each rung that has one.",
)
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=Number(0.1),
    help="Seconds after which the climb is given up.",
)
def command(file, arguments, module, steps, settings, stories, fault, rungs, seed, report, export, timeout):
    """Climb the debugging ladder and name what is wrong with a training setup.

    FILE defines subject(), or NAME(), which returns a mlxstories.ladder.Subject; one that does not is a training
    script, which is run under watch with ARGS and examined as it is. mlx-lm:NAME is an architecture of mlx-lm,
    small and with random weights. A run's name or directory stands for its recipe, from random weights.
    Left out, the built-in recipe is examined. Exit code 0: healthy; 1: at least one error found; 2: bad usage or
    input.
    """
    if fault == "list":
        list_faults()
        return
    if module is not None:
        arguments = ([file] if file is not None else []) + list(arguments)
        file = module
    if file and fault:
        raise click.UsageError("--break plants faults in the built-in recipe: leave FILE out")
    if (arguments or settings) and not (module or _is_script(file)):
        raise click.UsageError(f"{file}: takes no arguments and no --set, since it is no training script")
    from mlxstories.errors import StoriesError
    from mlxstories.faults.recipe import built_in
    from mlxstories.ladder import diagnose
    from mlxstories.ladder.time_limit import TimeLimitError, time_limit

    ladder = Ladder(sys.stderr if report == Path("-") else sys.stdout)
    with ExitStack() as script:
        try:
            with time_limit(timeout):
                if module or _is_script(file):
                    subject, captured = _captured(
                        script, ladder, file, arguments, bool(module), steps, settings
                    )
                else:
                    subject, captured = (
                        _subject(file, seed) if file else built_in(seed=seed, fault=fault),
                        None,
                    )
        except TimeLimitError as error:
            raise StoriesError(f"{file or 'the built-in recipe'}: {error}; raise --timeout") from error
        with ladder, time_limit(timeout):
            diagnosis = diagnose(
                subject, seed=seed, rungs=rungs or None, stories=stories, on_event=ladder.event
            )
            if captured is not None:
                diagnosis = captured.explained(diagnosis)
    ladder.verdict(diagnosis, story=file is None and stories == 4)
    if export:
        from mlxstories.plots.ladder import figures
        from mlxstories.plots.style import save

        for name, figure in figures(diagnosis, story=file is None and stories == 4).items():
            ladder.say(str(save(figure, export / f"{name}.png")))
    if report:
        write_report(diagnosis.to_dict(), report)
    sys.exit(0 if diagnosis.healthy else 1)


def _is_script(file: str | None) -> bool:
    from mlxstories.ladder.capture import defines

    return (
        file is not None
        and file.endswith(".py")
        and Path(file).is_file()
        and not defines(Path(file), "subject")
    )


def _captured(script: ExitStack, ladder: Ladder, target: str, arguments, module: bool, steps: int, settings):
    """A training script's subject, and the script itself, which is ended when ``script`` is left."""
    from mlxstories.ladder.capture import CapturedScript

    captured = script.enter_context(
        CapturedScript(target, arguments, module=module, steps=steps, settings=settings)
    )
    ladder.say(f"{target}: captured after {len(captured.losses)} gradients; its output is in {captured.log}")
    for note in captured.notes:
        ladder.say(f"  {note}")
    return captured.subject, captured


def _subject(spec: str, seed: int):
    from mlxstories.faults.architecture import architecture
    from mlxstories.ladder import load_subject
    from mlxstories.ladder.own import subject_of
    from mlxstories.model.mlx_lm import PREFIX
    from mlxstories.runs.directory import RUNS, find_run

    if spec.startswith(PREFIX):
        return architecture(spec.removeprefix(PREFIX), seed)
    if any((place / "config.json").is_file() for place in (Path(spec), RUNS / spec)):
        return subject_of(find_run(spec))
    return load_subject(spec)


def list_faults() -> None:
    from mlxstories.faults import FAULTS

    width = max(map(len, FAULTS))
    group = None
    for fault in FAULTS.values():
        if fault.group != group:
            group = fault.group
            click.echo(f"\n{group}")
        click.echo(f"  {fault.name:<{width}}  {fault.description} [{fault.code}]")
