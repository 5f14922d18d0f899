"""`mlxstories import`."""

from __future__ import annotations

import click

from mlxstories.cli.options import runs_option
from mlxstories.cli.types import Name, Place


@click.command("import")
@click.argument("source", metavar="DIR", type=Place())
@click.option("--name", type=Name(), help="The run's name.  [default: that of DIR]")
@runs_option
def command(source, name, runs):
    """Make an exported model a run again.

    DIR is what `mlxstories export` wrote, or what mlx-lm made of it. The run stands at step 0 with these weights.
    """
    from mlxstories.export import import_model
    from mlxstories.runs.directory import run_path

    run = import_model(source, run_path(runs, name or source.resolve().name))
    click.echo(f"{run.path}. Next:\n  mlxstories sample {run.path}")
    if run.config.get("data"):
        click.echo(f"  mlxstories train --resume {run.path}")
