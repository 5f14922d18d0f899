"""`mlxstories watch`."""

from __future__ import annotations

from pathlib import Path

import click

from mlxstories.cli.options import RUN


@click.command("watch")
@click.argument("name", metavar="[RUN]", type=RUN, required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8642,
    show_default=True,
    help="Port to serve on; 0 takes a free one.",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option(
    "--num",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Stories that each new checkpoint tells.",
)
@click.option("--runs", default="runs", show_default=True, help="Folder of runs.")
def command(name, port, show, num, runs):
    """Serve a run's report on this machine alone, and keep it up to date while the run trains.

    The page takes in what is new without reloading. It reads the run's files and changes nothing. RUN is a
    run's name or directory; without it, the newest run. Ctrl-C ends it.
    """
    from mlxstories.plots.report.live import LiveReport
    from mlxstories.plots.report.server import Server, keep_up
    from mlxstories.runs.directory import find_run

    run = find_run(name, Path(runs))
    report = LiveReport(run, num)
    server = Server(port)
    server.show(report.html())
    with server.running():
        click.echo(f"{run.path} at {server.url} (Ctrl-C ends it)")
        if show:
            click.launch(server.url)
        try:
            keep_up(server, report.changed, report.html)
        except KeyboardInterrupt:
            click.echo()
