"""Options that choose a model and a phase, shared by the commands that train."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from mlxstories.cli import completion
from mlxstories.cli.types import Whole

# option: (field of Phase, type, help)
_PHASE_FIELDS = {
    "optimizer": ("optimizer.name", str, "Optimiser: adamw, adam, nadamw, lion, muon or sgd."),
    "lr": ("optimizer.learning_rate", float, "Peak learning rate."),
    "weight-decay": ("optimizer.weight_decay", float, "Weight decay, times the learning rate."),
    "schedule": (
        "schedule.name",
        str,
        "Schedule: constant, linear_warmup, warmup_linear, warmup_cosine, noam, wsd.",
    ),
    "warmup": ("schedule.warmup", float, "Warmup: updates, or below 1 a share of them all."),
    "label-smoothing": ("label_smoothing", float, "Label smoothing of the training loss."),
    "accumulation": ("accumulation", Whole(), "Microbatches per update."),
    "clip-norm": ("clip_norm", float, "Largest global gradient norm."),
}


_NAMES = {
    "optimizer": completion.among(completion.optimizers),
    "schedule": completion.among(completion.schedules),
}


def phase_options(function: Callable) -> Callable:
    """Adds --phase and its overrides; the command receives ``phase``, a Phase."""

    @functools.wraps(function)
    def wrapper(*args, phase, settings, **options):
        from mlxstories.training.phases import PHASES, override

        own = {name: options.pop(name) for name in map(_parameter, _PHASE_FIELDS)}
        changes = phase_changes({**own, "settings": settings})
        return function(*args, phase=override(PHASES[int(phase)], changes), **options)

    wrapper = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Any other field of the phase.",
        shell_complete=completion.among(completion.phase_fields),
    )(wrapper)
    for option, (_, kind, text) in reversed(_PHASE_FIELDS.items()):
        described = f"{text}  [default: the phase's]"
        names = _NAMES.get(option)
        wrapper = click.option(f"--{option}", type=kind, help=described, shell_complete=names)(wrapper)
    return click.option(
        "--phase",
        type=click.Choice(["1", "2", "3"]),
        default="1",
        show_default=True,
        help="Training recipe.",
    )(wrapper)


def _parameter(option: str) -> str:
    return option.replace("-", "_")


def phase_changes(params: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the phase that the parameters of a command change, by their dotted paths."""
    changes = {
        field: params[_parameter(option)]
        for option, (field, _, _) in _PHASE_FIELDS.items()
        if params[_parameter(option)] is not None
    }
    for setting in params["settings"]:
        field, equals, value = setting.partition("=")
        if not equals:
            raise click.BadParameter(f"{setting!r} is not FIELD=VALUE, such as optimizer.eps=1e-6")
        changes[field] = _parse(value)
    return changes


def _parse(value: str):
    from mlxstories.storage.serialize import parse_json

    try:
        return parse_json(value)
    except ValueError:
        return value


class _Architecture(click.Choice):
    """decoder, encoder, or an architecture of mlx-lm."""

    def __init__(self):
        super().__init__(["decoder", "encoder", "mlx-lm:NAME"])

    def shell_complete(self, ctx, param, incomplete):
        names = completion.among(completion.architectures)(ctx, param, incomplete)
        return [CompletionItem(name) for name in names]

    def convert(self, value, param, ctx):
        return value if value.startswith("mlx-lm:") else super().convert(value, param, ctx)


_SHAPE = {
    "arch": (_Architecture(), "Decoder, encoder (sees both sides), or mlx-lm:NAME, such as mlx-lm:qwen3."),
    "norm": (click.Choice(["rms", "layer"]), "Normalisation."),
    "positions": (click.Choice(["rope", "learned", "sinusoidal"]), "Position encoding."),
    "feed-forward": (click.Choice(["swiglu", "gelu", "relu2"]), "Feed-forward part.  [default: the phase's]"),
    "layers": (Whole(), "Blocks."),
    "dim": (Whole(), "Width."),
    "heads": (Whole(), "Attention heads."),
    "hidden": (Whole(), "Width of the feed-forward part."),
    "context": (Whole(2), "Longest row, in tokens."),  # a story's beginning and what follows
    "dropout": (float, "Share of activations dropped."),
    "tied/--untied": (None, "Output matrix tied to the embedding."),
    "qk-norm/--no-qk-norm": (None, "Normalise queries and keys.  [default: the phase's]"),
    "mixing": (
        Whole(),
        "Tokens that each token mixes in before attention, itself included.  [default: the phase's]",
    ),
}


def model_options(function: Callable) -> Callable:
    """Adds --size and the model's parts; the command receives ``model``, a dict of what was given, whose
    "size" and "across_stories" are always there."""

    @functools.wraps(function)
    def wrapper(*args, size, across_stories, **options):
        names = [option.partition("/")[0].replace("-", "_") for option in _SHAPE]
        given = {name: value for name in names if (value := options.pop(name)) is not None}
        return function(*args, model={"size": size, "across_stories": across_stories, **given}, **options)

    wrapper = click.option(
        "--across-stories", is_flag=True, help="Let attention cross from one story of a row to the next."
    )(wrapper)
    for option, (kind, text) in reversed(_SHAPE.items()):
        described = text if "[default" in text else f"{text}  [default: the size's]"
        wrapper = click.option(f"--{option}", type=kind, default=None, help=described)(wrapper)
    return click.option(
        "--size",
        type=click.Choice(["debug", "small", "base", "large"]),
        default="base",
        show_default=True,
        help="Named model size; the options below change its parts.",
    )(wrapper)
