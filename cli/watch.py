"""`mlxstories watch`."""

from __future__ import annotations

import click

from mlxstories.cli.options import RUN, runs_option, whole_option


@click.command("watch")
@click.argument("name", metavar="[RUN]", type=RUN, required=False)
@whole_option("--port", default=8642, least=0, most=65535, help="Port to serve on; 0 takes a free one.")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@whole_option("--num", default=2, least=0, most=10_000, help="Stories that each new checkpoint tells.")
@runs_option
def command(name, port, show, num, runs):
    """Serve a run's report on this machine alone, and keep it up to date while the run trains.

    The page takes in what is new without reloading. It reads the run's files and changes nothing. RUN is a
    run's name or directory; without it, the newest run. Ctrl-C ends it.
    """
    from mlxstories.plots.report.live import LiveReport
    from mlxstories.plots.report.server import Server, keep_up
    from mlxstories.runs.directory import find_run

    run = find_run(name, runs)
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
