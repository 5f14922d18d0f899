"""`mlxstories plot`."""

from __future__ import annotations

from pathlib import Path

import click

from mlxstories.cli.options import RUN, runs_option
from mlxstories.cli.types import Place


@click.command("plot")
@click.argument("names", metavar="[RUN]...", type=RUN, nargs=-1)
@click.option(
    "--export",
    type=Place(file_okay=False),
    help="Write the figures into this folder.  [default: figures in the run; of several runs, here]",
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="File format of the figures.",
)
@click.option(
    "--against",
    type=click.Choice(["updates", "tokens", "epochs"]),
    help="What the x axes count.  [default: epochs for accuracy, updates for the rest]",
)
@runs_option
def command(names, export, suffix, against, runs):
    """Draw loss, accuracy, learning rate and gradient norms of one run, or of several in the same figures.

    RUN is a run's name or directory; without it, the newest run.
    """
    from mlxstories.plots.curves import figures
    from mlxstories.plots.runs import read_curves
    from mlxstories.plots.style import save
    from mlxstories.runs.directory import find_run

    found = [find_run(name, runs) for name in names or (None,)]
    export = export or (found[0].path if len(found) == 1 else Path()) / "figures"
    curves = read_curves(found)
    for name, figure in figures(curves, against).items():
        path = export / f"{name}.{suffix}"
        replaced = " (replaced)" if path.exists() else ""
        click.echo(f"{save(figure, path)}{replaced}")
