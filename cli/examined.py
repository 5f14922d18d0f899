"""What `mlxstories debug` is asked to examine: a subject's file, a script, an architecture, a run or the recipe."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxstories.cli.ladder_screen import LadderScreen
from mlxstories.errors import StoriesError, own_arguments

if TYPE_CHECKING:
    from mlxstories.ladder import Subject
    from mlxstories.ladder.capture import CapturedScript

_OF_SCRIPTS = ("steps", "settings", "follow", "setup")  # what only a training script can heed
# What is heeded beside an option that does not climb, and what that option does.
_WITHOUT_CLIMB = {
    "follow": (
        {"file", "arguments", "module", "settings", "report", "timeout"},
        "runs the script to its end, without a climb",
    ),
    "setup": (
        {"file", "arguments", "module", "settings", "steps", "cell", "timeout"},
        "stops when it is written, without a climb",
    ),
}


@dataclass(frozen=True)
class Examined:
    """The arguments of the command that say what is examined.

    Attributes:
        file: as it was given, or the module's name; None for the built-in recipe.
        arguments, settings: what follows ``--``, and each ``--set``; for scripts.
        module: whether ``file`` names a module.
        steps: updates that a script makes before the climb.
        fault: planted in the built-in recipe.
        cell: of a notebook, whose training is examined.
    """

    file: str | None
    arguments: tuple[str, ...]
    module: bool
    steps: int
    settings: tuple[str, ...]
    fault: str | None
    cell: int | None = None

    @property
    def name(self) -> str:
        return self.file or "the built-in recipe"

    @property
    def is_script(self) -> bool:
        """Whether it is a training script, to be run under watch."""
        from mlxstories.ladder.capture import is_script

        file = Path(self.file or "")
        return self.module or (file.is_file() and is_script(file))

    def refuse_options_without_effect(self, options: dict[str, str]) -> None:
        """Refuse options that have no effect on what is examined, or beside another one; ``options`` by name, as they
        were written.

        Raises:
            click.UsageError: the first such option, and what to do.
        """
        if self.module and not _can_be_imported(self.name):
            raise click.UsageError(f"-m {self.file}: no such module is installed or in the working directory")
        if self.fault == "list":
            _refuse_beside(options, "fault", set(), "list only lists the faults")
        if self.file and self.fault:
            raise click.UsageError("--break plants faults in the built-in recipe: leave FILE out")
        of_scripts = [option for name, option in options.items() if name in _OF_SCRIPTS]
        if (self.arguments or of_scripts) and not self.is_script:
            if self.file and self.file.endswith((".py", ".ipynb")) and not Path(self.file).exists():
                raise click.UsageError(f"{self.file}: no such file; give a training script")
            what = of_scripts[0] if of_scripts else "what follows --"
            raise click.UsageError(f"{what} is for training scripts, and {self.name} is not one")
        if self.cell:
            self._refuse_another_cell(self.cell)
        for name, (heeded, what) in _WITHOUT_CLIMB.items():
            _refuse_beside(options, name, heeded, what)

    def _refuse_another_cell(self, cell: int) -> None:
        from mlxstories.findings.notebooks import cells, is_notebook

        if not (self.is_script and is_notebook(self.name)):
            raise click.UsageError("--cell is for notebooks: mlxstories debug lesson.ipynb --cell 7")
        if cell > (most := len(cells(self.name))):
            raise click.UsageError(f"{self.name}: has {most} code cells, and no cell {cell}")

    def load(
        self, stack: ExitStack, ladder: LadderScreen, seed: int
    ) -> tuple[Subject, CapturedScript | None]:
        """The subject, and the script that it was captured from, which is ended when ``stack`` is left."""
        from mlxstories.faults.recipe import built_in
        from mlxstories.ladder.capture import OwnTraining

        if not self.is_script:
            return (_subject(self.file, seed) if self.file else built_in(seed=seed, fault=self.fault)), None
        try:
            captured = stack.enter_context(self._captured())
        except OwnTraining as own:
            ladder.say(
                f"{self.file}: trains by mlxstories itself; examined as `debug RUN` would, and no run is made"
            )
            return own.subject, None
        taken = len(captured.losses)
        output = f"; its output is in {captured.log}" if captured.printed else ""
        ladder.say(f"{self.file}: captured after {taken} gradient{'s' * (taken != 1)}{output}")
        for note in captured.notes:
            ladder.say(f"  {note}")
        return captured.subject, captured

    def _captured(self) -> CapturedScript:
        from mlxstories.ladder.capture import CapturedScript

        return CapturedScript(
            self.name,
            self.arguments,
            module=self.module,
            steps=self.steps,
            settings=self.settings,
            cell=self.cell,
        )

    def write_subject(self, path: Path) -> None:
        """Write ``path``, a file with ``subject()``, from what was captured of a script, or with everything left to
        fill in."""
        from mlxstories.ladder.capture import OwnTraining, write_subject, write_template
        from mlxstories.ladder.capture.loop import INSTEAD

        try:
            with self._captured() as captured:
                gaps = write_subject(captured, path, self.arguments, module=self.module)
        except OwnTraining:
            raise
        except StoriesError as error:
            reason = str(error).replace(INSTEAD, "")
            write_template(self.name, path, self.arguments, module=self.module, reason=reason)
            click.echo(f"{reason}\n{path}: all is yet to be filled in")
            return
        for gap in gaps:
            click.echo(f"to be filled in: {gap}")
        click.echo(f"{path} and {path.with_suffix('.safetensors')}: try `mlxstories debug {path.name}`")

    def follow(self, report: Path | None) -> int:
        """Run a script to its end under watch; returns the exit code, its own unless that is 0 and an error was found.

        Raises:
            StoriesError: the script raised.
            TimeLimitError: the time that the caller gave it is up.
        """
        from mlxstories.findings import ERROR
        from mlxstories.ladder.capture.running import MISUSED
        from mlxstories.ladder.capture.settings import Settings
        from mlxstories.ladder.subject import describe_error
        from mlxstories.ladder.time_limit import TimeLimitError
        from mlxstories.ladder.watching import watch
        from mlxstories.ladder.watching.following import run

        values = Settings(self.settings)
        with watch(path=report or "findings.json") as session:
            try:
                run(self.name, self.arguments, self.module, values)
            except SystemExit as ended:
                if ended.code == MISUSED:
                    given = f"-m {self.file}" if self.module else self.file
                    click.echo(f"{self.file}: {own_arguments(f'--follow {given}')}", err=True)
                if ended.code:
                    raise
            except TimeLimitError:
                raise
            except Exception as error:
                raise StoriesError(f"{self.file}: raised {describe_error(error)}") from error
        count = f"{session.updates} updates, {session.looks} looked at closely"
        names = ", ".join(finding.code for finding in session.findings) or "nothing found"
        click.echo(f"{self.file}: {count}: {names}", err=True)
        if values.unused:
            click.echo(f"{self.file} assigns no {values.unused[0]}, so --set cannot replace it", err=True)
        return int(any(finding.severity == ERROR for finding in session.findings))


def _can_be_imported(module: str) -> bool:
    """Whether there is such a module or, of a dotted name, the package around it; nothing is run."""
    package = module.partition(".")[0]
    try:
        return bool(package) and any((PathFinder.find_spec(package, [os.getcwd()]), find_spec(package)))
    except ValueError:  # a module of its own making
        return True


def _refuse_beside(options: dict[str, str], name: str, heeded: set[str], what: str) -> None:
    """Refuse what is not heeded beside the option ``name``, where that is given."""
    if name in options and (others := [options[key] for key in options if key not in {name, *heeded}]):
        raise click.UsageError(f"{options[name]} {what}: leave out {others[0]}")


def _subject(spec: str, seed: int) -> Subject:
    from mlxstories.faults.architecture import architecture
    from mlxstories.ladder import load_subject
    from mlxstories.ladder.own_training import subject_of
    from mlxstories.model.mlx_lm import PREFIX
    from mlxstories.runs.directory import RUNS, find_run

    if spec.startswith(PREFIX):
        return architecture(spec.removeprefix(PREFIX), seed)
    if any((place / "config.json").is_file() for place in (Path(spec), RUNS / spec)):
        return subject_of(find_run(spec))
    return load_subject(spec)
