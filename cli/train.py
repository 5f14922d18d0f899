"""`mlxstories train`."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlxstories.cli.compiling import say_of_compiling
from mlxstories.cli.options import RUN, data_options, given_options, runs_option, say_what_suits, whole_option
from mlxstories.cli.recipe import model_options, phase_changes, phase_options
from mlxstories.cli.sections import MODEL, RECIPE, STORIES, Sectioned
from mlxstories.cli.training_parts import parts, takes_record
from mlxstories.cli.training_screen import TrainingScreen
from mlxstories.cli.types import MOST_SEED, Listed, Name, Number, Whole
from mlxstories.errors import StoriesError

_SECTIONS = {
    "Used most": ("data", "name", "epochs", "steps", "seed", "start", "resume"),
    "Stories": STORIES,
    "Model": MODEL,
    "Recipe": (*RECIPE, "batch_size", "layout", "dtype"),
    "While it trains": (
        "log_every",
        "evaluations",
        "stop_after",
        "keep",
        "save_every",
        "repair",
        "max_repairs",
    ),
}

_HEEDED = {"resume", "runs", "report_to", "no_check", "patience"}  # with --resume


@click.command("train", cls=Sectioned, sections=_SECTIONS)
@data_options
@model_options
@phase_options
@whole_option("--epochs", default=4, help="Times through the training stories.")
@click.option("--steps", type=Whole(), help="Updates, instead of --epochs.")
@whole_option("--batch-size", default=4, help="Rows of a microbatch.")
@click.option(
    "--layout",
    type=click.Choice(["packed", "padded"]),
    default="packed",
    show_default=True,
    help="Fill rows with stories, or pad each story to a row.",
)
@whole_option(
    "--seed", default=0, least=0, most=MOST_SEED, help="Seed of the weights, the order of rows and dropout."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type that is computed in; weights stay float32.",
)
@whole_option("--log-every", default=10, help="Updates between two lines of metrics.")
@whole_option("--evaluations", default=10, help="Least number of validations in a run.")
@click.option(
    "--stop-after",
    type=Whole(0),
    help="End after this many validations without a lower loss; phase 3 cools down first.  [default: never]",
)
@whole_option("--keep", default=2, help="Newest checkpoints to keep, besides the best.")
@click.option(
    "--save-every",
    "--every",  # its name until 0.1
    "save_every",
    type=Whole(),
    help="Updates between checkpoints.  [default: one at each validation]",
)
@click.option(
    "--name", type=Name(), help="The run's name.  [default: the text's or the recipe's, and the time]"
)
@runs_option
@click.option(
    "--report-to",
    metavar="LIST",
    type=Listed(Name()),
    help="Also hand the metrics to tensorboard, wandb or both.  [default: neither]",
)
@click.option("--no-check", is_flag=True, help="Skip the ladder's cheap checks before the first step.")
@click.option(
    "--repair", is_flag=True, help="Return to good weights and change the recipe when a run goes wrong."
)
@whole_option("--max-repairs", default=3, help="With --repair: give up after this many.")
@click.option(
    "--from",
    "start",
    metavar="RUN|DIR",
    type=RUN,
    help="Begin with the weights and the tokenizer of a run, or of an exported model.",
)
@click.option(
    "--resume",
    metavar="RUN",
    type=RUN,
    help="Continue this run; all other options but --runs and --report-to are ignored.",
)
@click.option(
    "--patience",
    type=Number(),
    default=600,
    show_default=True,
    help="Seconds to wait for the other processes of mlx.launch before they are given up.",
)
@click.pass_context
def command(context, patience, **options):
    """Train a model on stories.

    With --data and texts of your own, settings that suit the amount of text are chosen and shown. Without options, it
    trains on the built-in stories, whose best reachable loss and accuracy are known, by the recipe that gets there
    soonest; --phase 1 is the plain one. Under mlx.launch, all processes train one model together.
    """
    from mlxstories import distributed

    given = set(given_options())
    if {"epochs", "steps"} <= given:
        raise click.UsageError("--epochs and --steps both say how long to train: give one of them.")
    if "max_repairs" in given and not options["repair"] and options["resume"] is None:
        raise click.UsageError("--max-repairs goes with --repair: give --repair too, or leave it out.")
    if options["model"]["across_stories"] and options["layout"] == "padded":
        raise click.UsageError(
            "--across-stories has no effect with --layout padded, where each row is one story: leave one of them out."
        )
    options |= {"given": given, "changes": phase_changes(context.params)}
    group = distributed.join(patience)
    if "patience" in given and group.size == 1:
        raise click.UsageError(
            "--patience is for several processes of mlx.launch, and this is one: leave it out."
        )
    show = TrainingScreen(quiet=not group.leads)
    try:
        with group.supervised(show.lost):
            group.require_equal(_shared(context))
            _train(group, show, command=context.find_root().obj, **options)
    except distributed.Lost:
        sys.exit(1)


say_what_suits(command)


def _shared(context) -> dict[str, Any]:
    """The options as given, those that rank 0 alone goes by left out."""
    own = ("name", "runs", "report_to", "no_check", "patience")
    options = [option for option in context.command.params if option.name not in own]
    return {option.opts[0]: context.params[option.name] for option in options}


def _train(group, show, *, command, name, runs, report_to, no_check, resume, **recipe):
    from mlxstories.distributed.follower import open_run
    from mlxstories.runs.directory import find_run, free, run_path
    from mlxstories.runs.trackers import Trackers
    from mlxstories.training import experiment

    say_of_compiling(show.say)
    trackers = group.together(lambda: Trackers((report_to or []) if group.leads else []))
    with contextlib.ExitStack() as held:
        if resume is not None:
            run = open_run(group, lambda: find_run(resume, runs))
            group.together(lambda: held.enter_context(run.locked()))
            trainer = experiment.resume(run, show, group)
            if ignored := _ignored(recipe["given"]):
                show.say(
                    f"note: ignored with --resume: {ignored}. {run.path} goes on with the options it began with."
                )
        else:
            name = name or _name(recipe)
            called = group.first(name.encode).decode()  # clocks differ
            path = group.together(lambda: free(run_path(runs, called)))
            new = group.together(lambda: parts(show.say, runs=runs, processes=group.size, **recipe))
            origin = {"weights": new.weights, "begun": new.begun}
            trainer = experiment.start(
                path, new.dataset, new.shape, new.phase, new.training, show, group, command, **origin
            )
            held.enter_context(trainer.run.locked())
        held.callback(trackers.close)
        group.together(lambda: trackers.begin(trainer.run, trainer.progress.step))
        trainer.report = trackers.after(show)
        _run(trainer, show, check=not no_check and trainer.progress.step == 0)


def _ignored(given: set[str]) -> str:
    """The options given that --resume does not heed."""
    options = click.get_current_context().command.params
    return ", ".join(option.opts[0] for option in options if option.name in given - _HEEDED)


def _name(recipe: Mapping[str, Any]) -> str:
    """What a run is called when nobody says: after the text of one's own, or the recipe, and the time."""
    from mlxstories.training.phases import SPEEDRUN

    data, given = recipe["data"], recipe["given"] | ({"phase"} if recipe["changes"] else set())
    if takes_record(data, given):
        what = SPEEDRUN.name
    elif isinstance(data.source, str):
        what = f"{recipe['phase'].name.replace(' ', '')}-{recipe['model']['size']}"
    else:
        what = re.sub(r"[^\w-]+", "-", Path(data.source[0]).resolve().stem).strip("-_")[:40] or "run"
    return f"{what}-{time.strftime('%Y%m%d-%H%M%S')}"


def _run(trainer, show, *, check: bool) -> None:
    from mlxstories.ladder.own_training import check as check_before
    from mlxstories.repair import GaveUp
    from mlxstories.training import experiment
    from mlxstories.training.progress import NotFinite

    trainer.warn = show.finding
    if check and trainer.group.leads:
        show.check(check_before(trainer))
    try:
        evaluation = _trained(trainer, show)
    except GaveUp as error:
        click.echo(f"Gave up: {error} The run is kept in {trainer.run.path}.", err=True)
        sys.exit(1)
    except NotFinite as error:
        if trainer.group.leads:
            click.echo(
                f"Stopped: {error} The checkpoints before it are kept in {trainer.run.path}.", err=True
            )
            click.echo("Find out why: mlxstories debug", err=True)
        sys.exit(1)
    except StoriesError as error:  # such as a full disk
        raise StoriesError(
            f"{error} What was saved stays; continue with: mlxstories train --resume {trainer.run.path}"
        ) from error
    if not trainer.group.leads:
        return
    if evaluation is None:
        click.echo(
            f"Stopped after step {trainer.progress.step}, checkpoint saved. Continue with:\n"
            f"  mlxstories train --resume {trainer.run.path}"
        )
        return
    show.result(trainer, experiment.finish(trainer, evaluation))


def _trained(trainer, show):
    """The evaluation after the last update, or None; the display has ended, however the training did."""
    from mlxstories.repair import train_and_repair

    try:
        show.begin(trainer)
        repairs = trainer.config.max_repairs
        return train_and_repair(trainer, repairs) if repairs else trainer.train()
    finally:
        show.end()
