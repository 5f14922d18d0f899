"""The faults that `mlxstories debug --break` can plant, on the screen."""

from __future__ import annotations

import click

from mlxstories.cli.text_output import wrapped


def list_faults() -> None:
    from mlxstories.faults import FAULTS
    from mlxstories.findings import ERROR

    click.echo(
        wrapped(
            "Faults for --break, by where they lie; in brackets, the cause that the ladder names, by an error or, "
            "where it says so, by a warning."
        )
    )
    width = max(map(len, FAULTS))
    for group in dict.fromkeys(fault.group for fault in FAULTS.values()):
        click.echo(f"\n{group}")
        for fault in FAULTS.values():
            if fault.group == group:
                by = "" if fault.severity == ERROR else f", a {fault.severity}"
                line = f"{fault.name:<{width}}  {fault.description} [{fault.code}{by}]"
                click.echo(wrapped(line, "  ", hanging=" " * (width + 2)))
