"""Write the generated parts of the documentation.

    python docs/generate.py cli       # docs/cli.md: the help of every command
    python docs/generate.py checks    # docs/checks.md: every check with its limits and their margins
    python docs/generate.py ladder    # the catalogue in docs/ladder.md: plants a fault for each code, minutes;
                                      # with --missing for new codes alone

tests/docs checks that they are current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parent
MARGINS = DOCS.parent / "mlxstories" / "ladder" / "margins.json"
BEGIN, END = "<!-- catalogue:begin -->", "<!-- catalogue:end -->"
_WIDTH = 88


@click.group()
def main():
    """Write the generated parts of the documentation."""


@main.command("cli")
def write_cli():
    """Write docs/cli.md."""
    (DOCS / "cli.md").write_text(cli(), encoding="utf-8")


@main.command("checks")
def write_checks():
    """Write docs/checks.md."""
    (DOCS / "checks.md").write_text(checks(), encoding="utf-8")


@main.command("ladder")
@click.option("--missing", is_flag=True, help="Keep the examples that are there already.")
def write_ladder(missing):
    """Write the catalogue of docs/ladder.md."""
    page = DOCS / "ladder.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    written, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{catalogue(written if missing else '')}{END}{after}", encoding="utf-8")


def cli() -> str:
    """The page of every command's help, as a terminal shows it."""
    from mlxstories.cli import main as program

    parts = ["# Commands\n\nEvery command explains itself with `-h`; this page is what they say.\n"]
    for context in commands(click.Context(program, info_name="mlxstories", **program.context_settings)):
        text = context.command.get_help(context).rstrip()
        parts.append(f"## {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def checks() -> str:
    """The page of every check: what it asks, what it can name, what it needs, and its limits with their margins."""
    from mlxstories.ladder.registry import ANY, RUNGS, checks_of

    margins = json.loads(MARGINS.read_text(encoding="utf-8")) if MARGINS.is_file() else {}
    parts = [
        "# Checks\n\nEvery question that the ladder asks, rung by rung, in the order in which it asks them. A check is "
        "skipped, and says why, where the setup hands over less than it needs or an error found before makes its "
        "answer meaningless. Limits stand with the readings that came nearest to them on healthy setups and on "
        "faults, where these have been measured.\n"
    ]
    for rung in RUNGS:
        parts.append(f"## {rung}\n")
        for check in checks_of(rung):
            named = ", ".join(f"[`{code}`](ladder.md#{code})" for code in check.causes)
            facts = [f"Names: {named}." if named else ""]
            facts += [f"Needs: {', '.join(f'`{field}`' for field in check.needs)}." if check.needs else ""]
            if check.unless:
                before = (
                    "any error" if check.unless == ANY else ", ".join(f"`{code}`" for code in check.unless)
                )
                facts.append(f"Skipped after {before}.")
            parts.append(
                f"### {check.name}\n\n{_demoted(check.description)}\n\n{' '.join(filter(None, facts))}\n"
            )
            if check.limits:
                parts.append(_limits(check, margins.get(check.name, {})))
    return "\n".join(parts)


def _demoted(description: str) -> str:
    """Headings inside of a docstring as bold words, below those of the page."""
    return re.sub(r"^#+ (.*)$\n?", r"**\1.** ", description, flags=re.M)


def _limits(check, margins: dict) -> str:
    rows = ["| limit | value | unit | on healthy setups | on faults |", "| --- | --- | --- | --- | --- |"]
    for name, limit in check.limits.items():
        healthy, fault = (_span(margins.get(name, {}).get(kind)) for kind in ("healthy", "faulty"))
        rows.append(f"| {name.replace('_', ' ')} | {limit.value:g} | {limit.unit} | {healthy} | {fault} |")
    return "\n".join(rows) + "\n"


def _span(readings) -> str:
    return f"{readings[0]:.3g} to {readings[1]:.3g}" if readings else "–"


def commands(context: click.Context) -> Iterator[click.Context]:
    """``context`` and that of every command under it, with the words that call it."""
    context.terminal_width = _WIDTH
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            yield from commands(click.Context(command, info_name=name, parent=context))


def catalogue(written: str = "") -> str:
    """A section for each code: what it means, and what the ladder says of a fault planted in the recipe.

    Examples that ``written``, an earlier catalogue, holds are taken from there.
    """
    from mlxstories.faults import FAULTS
    from mlxstories.ladder import CATALOGUE

    known = {
        match[1]: match[0] for match in re.finditer(r"^`--break ([a-z0-9.-]+)`.*\n\n(>.*\n)+", written, re.M)
    }
    parts = []
    for code, meaning in CATALOGUE.items():
        parts.append(f"### `{code}` {{ #{code} }}\n\n{meaning[0].upper()}{meaning[1:]}.\n")
        planted = [fault for fault in FAULTS.values() if fault.code == code]
        if planted:
            parts.append(known.get(planted[0].name) or example(planted[0]))
        if others := planted[1:]:
            parts.append(f"Named too: {'; '.join(f'`{f.name}` ({f.description})' for f in others)}.\n")
    return "\n".join(parts)


def example(fault) -> str:
    """What the ladder says of ``fault``."""
    from mlxstories.faults.recipe import built_in
    from mlxstories.ladder import diagnose

    findings = diagnose(built_in(fault=fault.name)).findings
    own = (f for f in findings if f.code == fault.code and f.severity == fault.severity == "warning")
    finding = next(own, findings[0] if findings else None)
    if finding is None or finding.code != fault.code:
        named = finding.code if finding else "healthy"
        raise click.ClickException(f"{fault.name} is named {named}, not {fault.code}")
    where = f" at `{finding.where}`" if finding.where else ""
    numbers = evidence(finding.evidence)
    lines = [f"{finding.message}.", numbers and f"**Evidence:** {numbers}", f"**Fix:** {finding.fix}."]
    quoted = "\n>\n".join(f"> {line}" for line in lines if line)
    click.echo(fault.code, err=True)
    return f"`--break {fault.name}` ({fault.description}): {finding.severity}{where}\n\n{quoted}\n"


def evidence(numbers: dict) -> str:
    """The figures of a finding in one line."""
    shown = {name: value for name, value in numbers.items() if isinstance(value, (bool, int, float, str))}
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in shown.items())


def _plain(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
