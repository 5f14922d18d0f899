"""Write the generated parts of the documentation.

    python docs/generate.py cli       # docs/cli.md: the help of every command
    python docs/generate.py ladder    # the catalogue in docs/ladder.md: plants a fault for each code, minutes

tests/docs checks that both are current.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parent
BEGIN, END = "<!-- catalogue:begin -->", "<!-- catalogue:end -->"
_WIDTH = 88


@click.group()
def main():
    """Write the generated parts of the documentation."""


@main.command("cli")
def write_cli():
    """Write docs/cli.md."""
    (DOCS / "cli.md").write_text(cli(), encoding="utf-8")


@main.command("ladder")
def write_ladder():
    """Write the catalogue of docs/ladder.md."""
    page = DOCS / "ladder.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{catalogue()}{END}{rest.split(END)[1]}", encoding="utf-8")


def cli() -> str:
    """The page of every command's help, as a terminal shows it."""
    from mlxstories.cli import main as program

    parts = ["# Commands\n\nEvery command explains itself with `-h`; this page is what they say.\n"]
    for context in commands(click.Context(program, info_name="mlxstories", **program.context_settings)):
        text = context.command.get_help(context).rstrip()
        parts.append(f"## {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def commands(context: click.Context) -> Iterator[click.Context]:
    """``context`` and that of every command under it, with the words that call it."""
    context.terminal_width = _WIDTH
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            yield from commands(click.Context(command, info_name=name, parent=context))


def catalogue() -> str:
    """A section for each code: what it means, and what the ladder says of a fault planted in the recipe."""
    from mlxstories.ladder import CATALOGUE, diagnose
    from mlxstories.ladder.faults import FAULTS
    from mlxstories.ladder.recipe import built_in

    parts = []
    for code, meaning in CATALOGUE.items():
        planted = [fault for fault in FAULTS.values() if fault.code == code]
        parts.append(f"### `{code}` {{ #{code} }}\n\n{meaning[0].upper()}{meaning[1:]}.\n")
        if not planted:
            continue
        fault = planted[0]
        finding = diagnose(built_in(fault=fault.name)).findings[0]
        if finding.code != code:
            raise click.ClickException(f"{fault.name} is named {finding.code}, not {code}")
        where = f" at `{finding.where}`" if finding.where else ""
        parts.append(f"`--break {fault.name}` ({fault.description}): {finding.severity}{where}\n")
        numbers = evidence(finding.evidence)
        lines = [f"{finding.message}.", numbers and f"**Evidence:** {numbers}", f"**Fix:** {finding.fix}."]
        parts.append("\n>\n".join(f"> {line}" for line in lines if line) + "\n")
        if others := planted[1:]:
            parts.append(f"Named too: {'; '.join(f'`{f.name}` ({f.description})' for f in others)}.\n")
        click.echo(code, err=True)
    return "\n".join(parts)


def evidence(numbers: dict) -> str:
    """The figures of a finding in one line."""
    shown = {name: value for name, value in numbers.items() if isinstance(value, (bool, int, float, str))}
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in shown.items())


def _plain(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
