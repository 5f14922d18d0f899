"""`mlxstories import`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="The run's name.  [default: that of DIR]")
@click.option(
    "--runs", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of runs."
)
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
