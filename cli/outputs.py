"""What `mlxstories debug` shows and writes of a diagnosis."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxstories.cli.json_output import write_json
from mlxstories.cli.ladder_screen import LadderScreen

if TYPE_CHECKING:
    from mlxstories.ladder.diagnosis import Diagnosis


@dataclass(frozen=True)
class Outputs:
    """The options of the command that say what is shown and written.

    Attributes:
        every: whether each check is listed.
        export: folder of figures, or None.
        report, log: paths of the JSON report and of the SARIF log, ``-`` for standard output, or None.
        form: "github" also prints annotations of a workflow.
    """

    every: bool
    export: Path | None
    report: Path | None
    log: Path | None
    form: str

    def __post_init__(self):
        if self.report is not None and self.report == self.log:
            raise click.UsageError("--json and --sarif name the same place: give each its own")

    @property
    def for_programs(self) -> bool:
        """Whether standard output is taken by what another program reads."""
        return Path("-") in (self.report, self.log)

    def screen(self) -> LadderScreen:
        return LadderScreen(sys.stderr if self.for_programs else sys.stdout)

    def give(
        self, diagnosis: Diagnosis, screen: LadderScreen, name: str, *, story: bool = False, offer: str = ""
    ) -> None:
        """Show the verdict and write the rest.

        Args:
            name: what was examined, as it was given.
            story: whether the figures of the debugging story stand beside it.
            offer: a last line.
        """
        if self.every:
            screen.checks(diagnosis)
        screen.verdict(diagnosis, story=story)
        if offer:
            screen.say(offer)
        self._write(diagnosis, screen, name, story)

    def _write(self, diagnosis: Diagnosis, screen: LadderScreen, name: str, story: bool) -> None:
        from mlxstories.findings.github import github_lines
        from mlxstories.findings.place import in_repository
        from mlxstories.findings.sarif import sarif

        if self.export:
            from mlxstories.plots.ladder import figures
            from mlxstories.plots.style import save

            for title, figure in figures(diagnosis, story=story).items():
                screen.say(str(save(figure, self.export / f"{title}.png")))
        if self.report:
            write_json(diagnosis.to_dict(), self.report)
        if self.log:
            write_json(sarif(diagnosis.findings, in_repository(name)), self.log)
        if self.form == "github":
            for line in (*github_lines(diagnosis.findings), *_how_to_see_it_again(diagnosis)):
                click.echo(line, err=self.for_programs)


def _how_to_see_it_again(diagnosis: Diagnosis) -> Iterator[str]:
    """An error of a workflow on another machine, from its log alone."""
    if diagnosis.healthy:
        return
    from mlxstories.findings.place import in_repository
    from mlxstories.runs.environment import environment

    facts = environment()
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("mlxstories", "mlx", "python"))
    folder = in_repository(".")
    where = "" if folder == "." else f" in {folder}"
    command = click.get_current_context().find_root().obj
    yield f"To see this again: {command}{where} ({versions}, {facts['device']['kind']}, {facts['platform']})"
