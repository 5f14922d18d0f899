"""`mlxstories report`."""

from __future__ import annotations

from pathlib import Path

import click

from mlxstories.cli.options import RUN, runs_option, which_option, whole_option
from mlxstories.cli.text_output import wrapped
from mlxstories.cli.types import Place
from mlxstories.errors import StoriesError


@click.command("report")
@click.argument("names", metavar="[RUN]...", type=RUN, nargs=-1)
@click.option(
    "--to",
    type=Place(dir_okay=False),
    help="File to write.  [default: report.html in the run; of several runs, in this directory]",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@whole_option("--num", default=3, least=0, most=10_000, help="Stories that each run tells in it.")
@which_option
@runs_option
def command(names, to, show, num, which, runs):
    """Make one HTML file that says how a run went, or how several compare.

    The verdict comes first, then curves, findings, stories with the probability of each token, the
    configuration and the command. The file needs no network, prints well and follows your system's dark mode.
    RUN is a run's name or directory; without it, the newest run. Runs that differ in their seed alone are
    one arm, with 95 % intervals.
    """
    from mlxstories.plots.report import page
    from mlxstories.plots.report.stories import stories
    from mlxstories.plots.report.summary import read_summaries
    from mlxstories.plots.report.verdict import verdict
    from mlxstories.runs.directory import find_run
    from mlxstories.storage.files import write_text, writing

    summaries = read_summaries([find_run(name, runs) for name in names or (None,)])
    told = {}
    for summary in summaries:
        try:
            told[summary.label] = stories(summary.run, num, which)
        except StoriesError as error:
            told[summary.label] = f"No stories: {error}"
    html = page.of_runs(summaries, told)
    to = to or (summaries[0].run.path if len(summaries) == 1 else Path()) / "report.html"
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    write_text(to, html)
    for summary in summaries:
        click.echo(wrapped(f"{summary.label}: {verdict(summary).text}"))
    click.echo(to)
    if show:
        click.launch(str(to))
