"""`mlxstories compare`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys

import click

from mlxstories.cli import completion
from mlxstories.cli.options import data_options, given_options, whole_option
from mlxstories.cli.sections import STORIES, Sectioned
from mlxstories.cli.text_output import wrapped
from mlxstories.cli.types import Listed, Name, Place, Whole
from mlxstories.durations import duration
from mlxstories.errors import listed

_STORIES = 1000  # of the built-in ones, so that a first comparison takes minutes
# in this order, where room is scarce
_LEFT_OUT = ("repeated-4", "distinct-2", "tokens", "seconds", "bits/char")
_NO_END = 1000  # columns of what has no width: a file, a pipe


_SECTIONS = {
    "What is compared": ("path", "ablate", "schedules", "arch", "scale", "sizes", "seeds", "tune", "story"),
    "Stories": ("data", *STORIES),
    "Training": ("budget", "epochs", "batch_size", "context", "jobs", "store"),
    "Results, besides the screen": ("json_path", "markdown_path", "report_path", "export"),
}


@click.command("compare", cls=Sectioned, sections=_SECTIONS)
@data_options
@click.option("--arms", "path", type=Place(dir_okay=False), metavar="PATH",
              help="Arms from a JSON or TOML file of field overrides.")  # fmt: skip
@click.option("--ablate", is_flag=True, help="Each ingredient of phase 2, added alone and removed alone.")
@click.option("--schedules", is_flag=True, help="Phase 1 under every learning-rate schedule.")
@click.option("--arch", type=Listed(Name()), metavar="LIST", help="Phase 1 on these: decoder,encoder.",
              shell_complete=completion.several(completion.kinds))  # fmt: skip
@click.option(
    "--scale",
    type=Listed(Whole()),
    metavar="LIST",
    help="Numbers of stories, such as 100,1000,10000; small ones are repeated, for equal tokens.",
)
@click.option(
    "--sizes",
    type=Listed(Name()),
    default="small",
    show_default=True,
    metavar="LIST",
    help="Model sizes.",
    shell_complete=completion.several(completion.sizes),
)
@whole_option("--seeds", default=3, most=10_000, help="Number of seeds.")
@click.option("--budget", type=click.Choice(["tokens", "updates", "both"]), default="tokens", show_default=True,
              help="What all arms get the same amount of.")  # fmt: skip
@whole_option("--epochs", default=2, help="Times through the stories (the largest number of --scale).")
@whole_option("--batch-size", default=4, help="Rows of a microbatch.")
@click.option("--context", type=Whole(), help="Longest row, in tokens.  [default: the size's]")
@click.option(
    "--tune", is_flag=True, help="First choose each arm's learning rate: 0.3, 1 or 3 times its own."
)
@click.option("--story", is_flag=True, help="Reproduce the figures of the debugging story, its 99.9 % too.")
@whole_option("--jobs", default=1, most=1000, help="Trainings to run at the same time.")
@click.option("--store", type=Place(), default="comparisons", show_default=True,
              help="Folder of finished trainings, which are never repeated.")  # fmt: skip
@click.option("--json", "json_path", type=Place(dir_okay=False), help="Write all results here.")
@click.option("--markdown", "markdown_path", type=Place(dir_okay=False),
              help="Write the report here.")  # fmt: skip
@click.option("--export", type=Place(file_okay=False), help="Write figures into this folder.")
@click.option("--report", "report_path", type=Place(dir_okay=False),
              help="Write an HTML report with tables and figures here.")  # fmt: skip
def command(data, path, ablate, schedules, arch, scale, sizes, seeds, budget, epochs, batch_size, context, tune,
            story, jobs, store, json_path, markdown_path, export, report_path):  # fmt: skip
    """Compare training recipes fairly.

    Phases 1, 2 and 3 by default, or other arms, on 1,000 built-in stories unless --stories says otherwise.
    All arms share stories, split, tokenizer, initial weights, order of batches and evaluation; they differ in
    the fields that the report lists, and in nothing else. Interrupted comparisons continue where they stopped.
    """
    from mlxstories.comparison import Study, StudyConfig
    from mlxstories.storage.files import check_writable

    if story:
        if others := [option for name, option in given_options().items() if name not in ("story", "store")]:
            raise click.UsageError(
                f"--story has arms, sizes and stories of its own: leave out {listed(others)}."
            )
        from mlxstories.comparison.reproduction import reproduce

        with _stopping():
            click.echo(reproduce(store, lambda line: click.echo(line, err=True)))
        return
    compared = _arms(path, ablate, schedules, arch)
    if data.source == "stories" and data.stories is None:
        data = dataclasses.replace(data, stories=_STORIES)
    settings = _settings(data, sizes, scale, budget, epochs, batch_size, context)
    study = Study(StudyConfig(compared, settings, range(seeds), tune), store, jobs, _Progress(jobs))
    with _stopping():
        study.check()
    for file in filter(None, (json_path, markdown_path, report_path)):
        check_writable(file)  # hours before it is written
    names = listed([arm.name for arm in compared], 6)
    trainings = len(compared) * len(settings) * (seeds + (3 if tune else 0))
    several = f", {len(settings)} tables" if len(settings) > 1 else ""
    _say(
        f"{trainings:,} trainings: {names}; {seeds} seed{'s' if seeds > 1 else ''}{several}. Those that finish are "
        f"kept in {store}, and the same command goes on from there."
    )
    with _stopping():
        tables = study.run()
    show(tables)
    _write(tables, json_path, markdown_path, export, report_path)


def _arms(path, ablate, schedules, arch):
    from mlxstories.comparison import arms

    options = (("--arms", path), ("--ablate", ablate), ("--schedules", schedules), ("--arch", arch))
    given = [name for name, value in options if value]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} each choose the arms: give one of them.")
    if path:
        return arms.read_arms(path)
    if ablate:
        return arms.ablation()
    if schedules:
        return arms.schedules()
    return arms.archs(arch) if arch else arms.phases()


def _settings(data, sizes, scale, budget, epochs, batch_size, context):
    from mlxstories.comparison.cells import Setting
    from mlxstories.comparison.study import BUDGETS

    model = () if context is None else (("context", context),)
    budgets = BUDGETS if budget == "both" else (budget,)
    whole = [Setting(data, size, epochs, batch_size, one, model) for size in sizes for one in budgets]
    return [part for setting in whole for part in setting.scaled(scale)] if scale else whole


def _write(tables, json_path, markdown_path, export, report_path) -> None:
    from mlxstories.comparison.document import markdown
    from mlxstories.comparison.study import as_dict
    from mlxstories.storage.files import write_json, write_text, writing

    for file in filter(None, (json_path, markdown_path, report_path)):
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    if json_path:
        write_json(json_path, as_dict(tables))
    if markdown_path:
        write_text(markdown_path, markdown(tables))
    if export:
        from mlxstories.plots.comparison import figures
        from mlxstories.plots.style import save

        for name, figure in figures(tables).items():
            click.echo(save(figure, export / f"{name}.png"))
    if report_path:
        from mlxstories.plots.report.page import of_tables

        write_text(report_path, of_tables(tables, click.get_current_context().obj))
        click.echo(report_path)


@contextlib.contextmanager
def _stopping():
    """Ctrl-C ends with a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        _say("Stopped. The same command continues from here.")
        sys.exit(130)


def _say(text: str) -> None:
    click.echo(wrapped(text, stream=sys.stderr), err=True)


class _Progress:
    """A line for each training that is done, and about how long the rest of its table takes."""

    def __init__(self, jobs: int):
        self.jobs, self.seconds = jobs, 0.0

    def __call__(self, cell, result, done: int, total: int) -> None:
        self.seconds = result["seconds"] + (self.seconds if done > 1 else 0.0)
        rest = duration(self.seconds / done * (total - done) / self.jobs)
        _say(
            f"{done:>4} of {total}  {cell.arm.name}, seed {cell.seed}: loss {result['loss']:.4f}, accuracy "
            f"{result['accuracy']:.1%}, {duration(result['seconds'])}"
            + (f"; {rest} left" if done < total else "")
        )


def show(tables) -> None:
    """Every setting as a table, what its arms differ in, and the answer in words."""
    from rich.console import Console

    from mlxstories.comparison.conclusion import answer
    from mlxstories.comparison.document import differing

    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=_NO_END, soft_wrap=True)
    for table in tables:
        out.print(_grid(table, out.width))
        for line in differing(table):
            click.echo(wrapped(line, hanging="  "))
        out.print(f"\n{answer(table)}\n", markup=False)


def _grid(table, room: int):
    """The arms with as many columns as ``room`` characters hold unbroken."""
    from rich.console import Console
    from rich.table import Table as Grid

    from mlxstories.comparison.document import COLUMNS, cells, title

    unbroken = Console(width=_NO_END)
    for count in range(len(_LEFT_OUT) + 1):
        shown = [i for i, name in enumerate(COLUMNS) if name not in _LEFT_OUT[:count]]
        grid = Grid(*(COLUMNS[i] for i in shown), title=title(table), title_justify="left")
        for row in table.rows:
            values = cells(table, row)
            grid.add_row(*(values[i] for i in shown))
        if unbroken.measure(grid).maximum <= room:
            break
    return grid
