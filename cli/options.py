"""Options that choose stories and arguments that choose runs, shared by the commands that need some."""

from __future__ import annotations

import functools
from collections.abc import Callable

import click
from click.core import ParameterSource

from mlxstories.bounds import MOST_WHOLE as MOST
from mlxstories.cli import completion
from mlxstories.cli.types import MOST_SEED, Name, Place, RunType, Whole

RUN = RunType("dir")
RUN_OR_FILE = RunType("file")


# Options of `train` that take what suits the text where they are not given, and in their places its default.
SUITED = {
    "stories",
    "tokenizer",
    "vocab_size",
    "size",
    "layers",
    "context",
    "dropout",
    "phase",
    "weight_decay",
    "epochs",
    "batch_size",
    "stop_after",
}


def say_what_suits(command: click.Command) -> click.Command:
    """The command, whose options of `SUITED` say that they may take something else than their default."""
    for option in command.params:
        if isinstance(option, click.Option) and option.name in SUITED:
            words, _, default = (option.help or "").partition("  [default: ")
            option.help = (
                f"{words}  [default: {default.removesuffix(']') or option.default}, or what suits the text]"
            )
            option.show_default = False
    return command


def whole_option(*names: str, default: int | None, least: int = 1, most: int = MOST, help: str) -> Callable:
    """An option that is a whole number and has a default, which is shown unless the help says it."""
    shown = "[default" not in help
    return click.option(*names, type=Whole(least, most), default=default, show_default=shown, help=help)


def given_options() -> dict[str, str]:
    """The parameters of the command under way that its user has set, and the option that sets each."""
    context = click.get_current_context()
    own = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {
        option.name: option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(option.name) not in own
    }


runs_option = click.option(
    "--runs", type=Place(file_okay=False), default="runs", show_default=True, help="Folder of runs."
)
which_option = click.option(
    "--weights",
    "--which",  # its name until 0.1
    "which",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Weights of the lowest validation loss, or the last ones.",
)


field_option = click.option(
    "--field",
    default="text",
    show_default=True,
    help="Field of JSON lines, CSV and parquet that holds the text.",
)
separator_option = click.option(
    "--separator",
    type=click.Choice(["auto", "endoftext", "blank-line", "line", "file"]),
    default="auto",
    show_default=True,
    help="What separates stories in text files.",
)


def sources_option(*names: str) -> Callable:
    """--data, received as a tuple of names."""
    return click.option(
        "--data",
        *names,
        type=Name(),
        multiple=True,
        default=("stories",),
        show_default=True,
        metavar="SOURCE",
        shell_complete=completion.sources,
        help="Source: stories (built in), tinystories, files, directories or 'code/*.py'; repeatable.",
    )


def data_options(function: Callable) -> Callable:
    """Adds --data and how to read, split and tokenise it; the command receives ``data``, a DataConfig.

    ``--data-seed`` stands apart from the seed of a training, so that runs of several seeds share stories.
    """
    return sources_option()(reading_options(function))


def reading_options(function: Callable) -> Callable:
    """Adds how to read, split and tokenise sources; of ``data``, their names, the command receives a DataConfig."""

    @functools.wraps(function)
    def wrapper(
        *args, data, stories, validation, field, separator, split, tokenizer, vocab_size, data_seed, **options
    ):
        from mlxstories.data.config import DataConfig

        config = DataConfig(
            source=data[0] if len(data) == 1 else data,
            stories=stories,
            validation=validation,
            field=field,
            separator=separator,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            split=split,
            seed=data_seed,
        )
        if not options.get("resume"):
            refuse_reading_options_without_effect(config)
        return function(*args, data=config, **options)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def refuse_reading_options_without_effect(data) -> None:
    """Refuse options of reading and splitting that the sources of ``data``, a DataConfig, have no use for.

    Raises:
        click.UsageError: the first of them, and what it is for.
    """
    from mlxstories.data.config import DataConfig
    from mlxstories.data.dataset import is_prepared
    from mlxstories.data.folder import has_fields, is_plain, source_files

    if is_prepared(data):  # which says itself what it was prepared with
        return
    told = isinstance(data.source, str)
    asked = {
        name
        for name in ("field", "separator", "split", "seed")
        if getattr(data, name) != getattr(DataConfig, name)
    }
    files = [] if told or not asked & {"field", "separator"} else source_files(data.source)
    without_effect = {
        "field": not any(map(has_fields, files)),
        "separator": not any(map(is_plain, files)),
        "split": told,
        "seed": data.source == "tinystories" or (not told and data.split == "tail"),
    }
    for name, (option, what) in _READING.items():
        if name in asked and without_effect[name]:
            raise click.UsageError(f"{option} {what}: leave it out.")


_READING = {
    "field": ("--field", "names a column of JSON lines, CSV or parquet, and there is none to read"),
    "separator": ("--separator", "is for text files, and there is none to read"),
    "split": ("--split", "is for files, and what is built in, or is TinyStories, has a split of its own"),
    "seed": ("--data-seed", "has nothing to draw: the split is given"),
}


_OPTIONS = (
    click.option(
        "--stories",
        type=Whole(),
        metavar="N",
        help="Stories to train on.  [default: 10,000 built in, 100,000 of tinystories, all of files]",
    ),
    click.option(
        "--validation",
        type=Whole(),
        metavar="N",
        help="Stories held out.  [default: 500; of files a tenth, at most 500]",
    ),
    field_option,
    separator_option,
    click.option(
        "--split",
        type=click.Choice(["seeded", "tail"]),
        default="seeded",
        show_default=True,
        help="Held-out stories: drawn at random, or the last ones in order.",
    ),
    click.option(
        "--tokenizer",
        type=click.Choice(["word", "char", "bpe"]),
        default="word",
        show_default=True,
        help="A token is a word, a character or a piece of a word.",
    ),
    whole_option("--vocab-size", default=8192, help="Largest vocabulary, in tokens."),
    whole_option(
        "--data-seed", default=0, least=0, most=MOST_SEED, help="Seed of the built-in stories and the split."
    ),
)
