"""Help in sections, so that what is wanted most often is found first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

STORIES = ("stories", "validation", "field", "separator", "split", "tokenizer", "vocab_size", "data_seed")
MODEL = (
    "size",
    "layers",
    "dim",
    "heads",
    "hidden",
    "context",
    "dropout",
    "arch",
    "norm",
    "positions",
    "feed_forward",
    "tied",
    "qk_norm",
    "mixing",
    "across_stories",
)
RECIPE = (
    "phase",
    "lr",
    "weight_decay",
    "optimizer",
    "schedule",
    "warmup",
    "label_smoothing",
    "accumulation",
    "clip_norm",
    "settings",
)


class Sectioned(click.Command):
    """A command whose help lists its options under headings; those that none names come last.

    Args:
        sections: by heading, the names of its parameters in the order in which they are shown.
    """

    def __init__(self, *args, sections: Mapping[str, Sequence[str]], **options):
        super().__init__(*args, **options)
        self.sections = sections

    def format_options(self, ctx, formatter):
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {option.name: record for option in options if (record := option.get_help_record(ctx))}
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        if records:
            with formatter.section("Other options"):
                formatter.write_dl(list(records.values()))
