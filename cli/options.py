"""Options that choose the stories, shared by every command that needs some."""

from __future__ import annotations

import functools
from collections.abc import Callable

import click


def data_options(function: Callable) -> Callable:
    """Adds --data and how to read, split and tokenise it; the command receives ``data``, a DataConfig.

    ``--data-seed`` stands apart from the seed of a training, so that runs of several seeds share stories.
    """

    @functools.wraps(function)
    def wrapper(
        *args, data, stories, validation, field, separator, split, tokenizer, vocab_size, data_seed, **options
    ):
        from mlxstories.data.dataset import DataConfig

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
        return function(*args, data=config, **options)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


_OPTIONS = (
    click.option(
        "--data",
        multiple=True,
        default=("stories",),
        show_default=True,
        metavar="SOURCE",
        help="stories (built in), tinystories, or files and directories; repeatable.",
    ),
    click.option(
        "--stories",
        type=int,
        metavar="N",
        help="Stories to train on.  [default: 10,000 built in, 100,000 of tinystories, all of files]",
    ),
    click.option(
        "--validation",
        type=int,
        metavar="N",
        help="Stories held out.  [default: 500; of files a tenth, at most 500]",
    ),
    click.option("--field", default="text", show_default=True, help="Text field of JSON lines and parquet."),
    click.option(
        "--separator",
        type=click.Choice(["auto", "endoftext", "blank-line", "file"]),
        default="auto",
        show_default=True,
        help="What separates stories in text files.",
    ),
    click.option(
        "--split",
        type=click.Choice(["seeded", "tail"]),
        default="seeded",
        show_default=True,
        help="Held-out stories: drawn at random, or the last ones in order.",
    ),
    click.option(
        "--tokenizer", type=click.Choice(["word", "char", "bpe"]), default="word", show_default=True
    ),
    click.option("--vocab-size", default=8192, show_default=True, help="Most tokens in the vocabulary."),
    click.option("--data-seed", default=0, show_default=True, help="Of the built-in stories and the split."),
)
