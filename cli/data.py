"""`mlxstories data`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import click

from mlxstories.cli.options import (
    data_options,
    field_option,
    given_options,
    reading_options,
    refuse_reading_options_without_effect,
    separator_option,
    sources_option,
    whole_option,
)
from mlxstories.cli.text_output import wrapped
from mlxstories.cli.types import MOST_SEED, Name, Place
from mlxstories.errors import StoriesError


@click.group("data")
def command():
    """Show and count stories; prepare corpora larger than memory."""


@command.command()
@click.argument("data", type=Name(), nargs=-1, required=True, metavar="SOURCE...")
@reading_options
@click.option("--to", type=Place(), required=True, metavar="DIR", help="New directory to write.")
def prepare(data, to):
    """Tokenise stories of any number into a directory to train from.

    SOURCE is stories (built in), tinystories, or files and directories. Memory stays bounded; stopped, the
    same command goes on where it was. Then: mlxstories train --data DIR
    """
    from mlxstories.data.prepare import prepare

    try:
        with _Meter() as meter:
            index = prepare(data, to, report=meter)
    except KeyboardInterrupt:
        click.echo("Stopped. The same command goes on where it was.", err=True)
        sys.exit(130)
    stories, tokens = (sum(getattr(shard, name) for shard in index.train) for name in ("stories", "tokens"))
    held_out = sum(shard.stories for shard in index.validation)
    click.echo(
        f"{to}: {tokens + stories:,} tokens of {stories:,} stories to train on, {held_out:,} held out; "
        f"{index.duplicates_removed:,} exact duplicates removed"
        + (f", {index.empty_removed:,} without a token" if index.empty_removed else "")
    )
    click.echo(f"Next:\n  mlxstories train --data {to}")


class _Meter:
    """One line for what is going on, rewritten in a terminal and left out elsewhere."""

    def __init__(self):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.status = self.console.status("") if self.console.is_terminal else None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if self.status is not None:
            of = f" of {total / 1e6:,.0f}" if total else ""
            self.status.start()
            self.status.update(f"{stage}: {done / 1e6:,.0f}{of} MB")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is not None:
            self.status.stop()


@command.command()
@click.argument("directory", type=Place(), metavar="DIR")
def verify(directory):
    """Check every byte of a prepared directory against its index."""
    from mlxstories.data import shards

    if not shards.is_prepared(directory):
        raise StoriesError(f"{directory} is no prepared directory; make one by mlxstories data prepare")
    prepared = shards.verify(directory)
    click.echo(
        f"{directory} is whole: {prepared.train.targets:,} tokens to train on, {prepared.val.targets:,} held out"
    )


@command.command()
@sources_option("paths")
@whole_option("--stories", default=3, help="Stories to show.")
@whole_option("--seed", default=0, least=0, most=MOST_SEED, help="Seed of the built-in stories.")
@field_option
@separator_option
@click.option("--floor", is_flag=True, help="Show what is known about each built-in story too.")
def show(paths, stories, seed, field, separator, floor):
    """Print some stories."""
    from mlxstories.data import shards, source
    from mlxstories.data.config import DataConfig
    from mlxstories.data.readers import read_documents
    from mlxstories.data.tinystories import download

    given = given_options()
    if "seed" in given and paths != ("stories",):
        raise click.UsageError("--seed is of the built-in stories: leave it out, or leave out --data.")
    refuse_reading_options_without_effect(
        DataConfig(paths[0] if len(paths) == 1 else paths, field=field, separator=separator)
    )
    if paths == ("stories",):
        for number, story in enumerate(source.stories(stories, seed)):
            click.echo(("\n" if number else "") + wrapped(story.text))
            if floor:
                click.echo(wrapped(f"[{_known(story)}]", "  "))
        return
    if floor:
        raise StoriesError("--floor is known for the built-in stories alone; leave out --data")
    if paths == ("tinystories",):
        paths, separator = (download("validation"),), "endoftext"
    if len(paths) == 1 and shards.is_prepared(Path(paths[0])):
        if unread := [given[name] for name in ("field", "separator") if name in given]:
            raise click.UsageError(f"{paths[0]} was read when it was prepared: leave out {unread[0]}.")
        prepared = shards.load(Path(paths[0]))
        documents = shards.Decoded(prepared.val, prepared.tokenizer)
    else:
        documents = read_documents(paths, field=field, separator=separator)
    for number, text in enumerate(islice(documents, stories)):
        click.echo(("\n" if number else "") + wrapped(text))


def _known(story) -> str:
    from mlxstories.data.source import KINDS

    kinds = ", ".join(f"{(story.kind == i).mean():.0%} {name}" for i, name in enumerate(KINDS))
    return (
        f"{len(story.kind)} tokens, {story.nats.mean():.3f} nats per token (expected "
        f"{story.entropy.mean():.3f}), best accuracy {story.best.mean():.1%}; {kinds}"
    )


@command.command()
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def stats(data, as_json):
    """Count stories, tokens, unknown words and duplicates.

    Of the built-in stories, the floor of the loss too.
    """
    import json

    from mlxstories.data.dataset import is_prepared, load_dataset
    from mlxstories.data.folder import remarks
    from mlxstories.training.advice import UNKNOWN

    dataset = load_dataset(data)
    if as_json:
        click.echo(json.dumps(dataset.report, indent=2, ensure_ascii=False))
        return
    if isinstance(data.source, tuple) and not is_prepared(data):
        for remark in remarks(data.source, separator=data.separator):
            click.echo(wrapped(f"{remark}."))
    report = dataset.report
    source = report["source"] if isinstance(report["source"], str) else ", ".join(report["source"])
    click.echo(f"{source}: {report['vocabulary']:,} {report['tokenizer']} tokens in the vocabulary")
    for part in ("train", "validation"):
        row = report[part]
        stories = "1 story" if row["stories"] == 1 else f"{row['stories']:,} stories"
        line = (
            f"{part:>10}: {stories}, {row['tokens']:,} tokens ({row['mean_length']:,.0f} a story, longest "
            f"{row['max_length']:,}), {row['bytes']:,} bytes, {row['unknown_rate']:.2%} unknown"
        )
        click.echo(wrapped(line, hanging=" " * 12))
    if report["validation"]["unknown_rate"] > UNKNOWN:
        click.echo(wrapped("--tokenizer bpe, which train takes for texts of your own, knows every word."))
    click.echo(f"{report['duplicates_removed']:,} exact duplicates removed")
    _echo_near_duplicates(report["near_duplicates"])
    if dataset.floor is None:
        click.echo("floor unknown")
        return
    floor = dataset.floor
    ceiling = "" if floor.accuracy is None else f", best accuracy {floor.accuracy:.2%}"
    click.echo(f"floor {floor.nats:.4f} nats per token{ceiling}")
    for name, row in floor.by_kind.items():
        click.echo(
            f"{name:>10}: {row['share']:.1%} of the tokens, {row['nats']:.3f} nats, best accuracy "
            f"{row['accuracy']:.1%}"
        )


def _echo_near_duplicates(found: dict | None) -> None:
    if found is None:
        return
    train, validation = found["compared"]
    line = (
        f"{found['count']:,} validation stories closely resemble training stories "
        f"({validation:,} against {train:,} of {found['total'][0]:,} compared)"
    )
    click.echo(wrapped(line))
    for example in found["examples"]:
        click.echo(f"  {example['similarity']:.2f}  {example['validation']!r} ~ {example['train']!r}")
