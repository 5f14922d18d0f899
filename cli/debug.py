"""`mlxstories debug`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from mlxstories.cli.options import RUN_OR_FILE
from mlxstories.cli.types import Number, Place
from mlxstories.comparison import debugging_story

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
    "--deep",
    is_flag=True,
    help="Then exchange model, loss and step for plain ones and train: which exchange helps?",
)
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=Number(0.1),
    help="Seconds after which the climb is given up.",
)
def command(
    file, arguments, module, steps, settings, stories, fault, rungs, seed, report, export, deep, timeout
):
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
    from mlxstories.cli.deep import deepened, estimated
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
        if deep:
            diagnosis = deepened(diagnosis, subject, seed, timeout, ladder)
        offer = not deep and not rungs and diagnosis.healthy and estimated(subject, seed)
    ladder.verdict(diagnosis, story=file is None and stories == 4)
    if offer:
        ladder.say(f"--deep exchanges model, loss and step for plain ones and trains: about {offer:.0f} s")
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


def write_report(report: dict, path: Path) -> None:
    text = json.dumps(_finite(report), indent=2) + "\n"
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    from mlxstories.runs.directory import write_text, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _finite(value):
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


class Ladder:
    """The climb for the eye: live in a terminal, one line a rung elsewhere."""

    def __init__(self, stream):
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=stream, highlight=False, emoji=False)
        self.rungs: list = []
        self.running = None
        self.live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        if self.live:
            self.live.stop()

    def say(self, text: str = "") -> None:
        """Print a line; where a terminal breaks it, its parts keep the indent."""
        if not self.live:
            self.console.print(text, markup=False, soft_wrap=True)
            return
        from rich.padding import Padding
        from rich.text import Text

        line = text.lstrip(" ")
        self.console.print(Padding(Text(line), (0, 0, 0, len(text) - len(line))))

    def event(self, kind: str, value) -> None:
        if kind == "rung":
            self.running = value
            self.rungs.append(value)
        elif kind == "done":
            self.running = None
            if not self.live:
                self.say(self._line(value))
        if self.live:
            self.live.update(self._table())

    def _line(self, rung) -> str:
        marks = {"passed": "✓", "failed": "✗", "skipped": "–"}
        return f"{marks[rung.status]} {rung.name:<8} {rung.seconds:5.1f} s  {_summary(rung)}"

    def _table(self):
        from rich.spinner import Spinner
        from rich.table import Table

        marks = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[dim]–[/]"}
        table = Table.grid(padding=(0, 1))
        for rung in self.rungs:
            running = rung is self.running
            mark = Spinner("dots") if running else marks[rung.status]
            last = rung.checks[-1].name if running and rung.checks else ""
            summary = last if running else _summary(rung)
            seconds = "" if running else f"{rung.seconds:5.1f} s"
            table.add_row(mark, rung.name, seconds, summary.replace("[", r"\["))
        return table

    def verdict(self, diagnosis, *, story: bool) -> None:
        if story:
            self._beside_the_story(diagnosis)
        errors = [f for f in diagnosis.findings if f.severity == "error"]
        self.say()
        for finding in diagnosis.findings:
            self._finding(finding)
        if not errors:
            skipped = sum(c.status == "skipped" for r in diagnosis.rungs for c in r.checks)
            rest = f" ({skipped} checks skipped)" if skipped else ""
            self.say(f"{diagnosis.subject}: healthy, in {diagnosis.seconds:.1f} s{rest}")
        else:
            self.say(f"{diagnosis.subject}: {errors[0].code}, in {diagnosis.seconds:.1f} s")

    def _finding(self, finding) -> None:
        self.say(f"{finding.severity}: {finding.code}" + (f" at {finding.where}" if finding.where else ""))
        self.say(f"  {finding.message}")
        if finding.fix:
            self.say(f"  Fix: {finding.fix}")
        if consequences := finding.evidence.get("consequences"):
            self.say(f"  It brings about: {', '.join(consequences)}")

    def _beside_the_story(self, diagnosis) -> None:
        data = {name: value for rung in diagnosis.rungs for name, value in rung.figures.items()}
        steps, accuracy = debugging_story.MINIMAL
        here = next((p[2] for p in data.get("overfit", {}).get("points", ()) if p[0] == steps), None)
        if here is not None:
            self.say(f"\n4 stories, {steps} steps: {here:.1%} of the tokens; the story's {accuracy:.1%}")
        points = [p for p in data.get("sweep", ()) if p["rate"]]
        if points:
            self.say(f"learning rates, {points[0]['steps']} steps on the same stories:")
        for point in points:
            told = next(
                (a for rate, a in debugging_story.SWEEP.items() if abs(rate / point["rate"] - 1) < 0.05), None
            )
            beside = f"; the story's {told:.0%}" if told is not None else ""
            self.say(f"  {point['rate']:.0e}: {point['accuracy']:.1%}{beside}")


def _summary(rung) -> str:
    failed = [check for check in rung.checks if check.status == "failed"]
    if failed:
        return "; ".join(f"{c.name}: {c.detail}" if c.detail else c.name for c in failed)
    if rung.status == "skipped":
        return rung.checks[0].detail if rung.checks else ""
    passed = sum(check.status == "passed" for check in rung.checks)
    skipped = sum(check.status == "skipped" for check in rung.checks)
    telling = [c.detail for c in rung.checks if c.name in _TELLING and c.detail]
    counts = f"{passed} checks" + (f", {skipped} skipped" if skipped else "")
    return "; ".join([counts, *telling])


_TELLING = ("first loss near ln V", "memorises a few stories", "better than word frequencies")
