"""The curves of training runs: loss, accuracy, learning rate and gradient norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from mlxstories.errors import StoriesError
from mlxstories.plots.runs import Curves
from mlxstories.plots.style import (
    COLOURS,
    GREY,
    legend_above,
    log_axis,
    mark_level,
    mark_moment,
    new_figure,
    styled,
)

AGAINST = {"updates": "step", "tokens": "tokens", "epochs": "epoch"}

VANISHED = 1e-6  # the gradient norm below which the debugging story calls a model dead


def figures(runs: Sequence[Curves], against: str | None = None) -> dict[str, Figure]:
    """Every figure by name; ``against`` is what the x axis counts (None: accuracy against epochs, the rest
    against updates).

    Raises:
        StoriesError: more runs than colours that can be told apart.
    """
    if len(runs) > len(COLOURS):
        raise StoriesError(
            f"at most {len(COLOURS)} runs can be told apart in one figure; got {len(runs)}. Plot fewer."
        )
    return {
        "loss": loss(runs, against or "updates"),
        "accuracy": accuracy(runs, against or "epochs"),
        "learning_rate": learning_rate(runs, against or "updates"),
        "gradient_norm": gradient_norm(runs, against or "updates"),
    }


@styled
def loss(runs: Sequence[Curves], against: str = "updates") -> Figure:
    """Training and validation loss with the floor, and how far above the floor validation is."""
    floors = {run.floor for run in runs}
    heights = (3.4, 1.7) if None not in floors else (4.2,)
    figure, panels = new_figure("Loss", _caption(runs, "training"), heights)
    _draw_splits(panels[0], runs, against, "loss")
    _draw_levels(panels[0], runs, "floor", "floor {:.3f}", above=False)
    _draw_moments(panels[0], runs, against)
    top = max(np.nanmax(np.concatenate([run.train["loss"], run.val["loss"]])) for run in runs)
    panels[0].set(ylabel="loss (nats per token)", ylim=(0, min(top * 1.05, _first_loss(runs) * 1.3)))
    if len(panels) == 2:
        for run, (_, colour) in zip(runs, _colours(runs), strict=True):
            gap = run.val["loss"] / run.floor - 1
            x = run.val[AGAINST[against]]
            panels[1].plot(x, np.where(gap > 0, gap, np.nan), "o-", color=colour, markersize=4)
        log_axis(panels[1], "%", 100)
        panels[1].set_ylabel("validation\nabove floor")
    _label_x(panels[-1], against)
    return figure


@styled
def accuracy(runs: Sequence[Curves], against: str = "epochs") -> Figure:
    """Training and validation accuracy with the ceiling."""
    figure, (axes,) = new_figure("Accuracy of the next token", _caption(runs, "training"))
    _draw_splits(axes, runs, against, "accuracy")
    _draw_levels(axes, runs, "ceiling", "ceiling {:.1%}", above=True)
    axes.set(ylabel="accuracy (share of real tokens)", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _label_x(axes, against)
    return figure


@styled
def learning_rate(runs: Sequence[Curves], against: str = "updates") -> Figure:
    """The learning rate of every update that was recorded."""
    figure, (axes,) = new_figure("Learning rate", _caption(runs), (3.4,))
    _draw_moments(axes, runs, against)
    for index, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        x, y = run.train[AGAINST[against]], run.train["learning_rate"]
        # Runs often share a schedule: the first lines are broad enough to be seen under the later ones.
        axes.plot(x, y, color=colour, linewidth=0.7 + 1.1 * (len(runs) - index))
    axes.set(ylabel="learning rate", ylim=(0, None))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    _label_x(axes, against)
    return figure


@styled
def gradient_norm(runs: Sequence[Curves], against: str = "updates") -> Figure:
    """Global gradient norm before clipping; for a single run that of each part of the model too."""
    figure, (axes,) = new_figure("Gradient norm before clipping", _caption(runs, "gradient norm"))
    lowest = np.inf
    for label, x, values, colour, style in _norms(runs, AGAINST[against]):
        values = np.where(values > 0, values, np.nan)
        axes.plot(x, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(x, smooth(values), color=colour, linestyle=style, linewidth=1.4, label=label)
        lowest = min(lowest, np.nanmin(values, initial=np.inf))
    axes.set_yscale("log")
    if lowest < 1e3 * VANISHED:
        mark_level(axes, VANISHED, "vanished below 1e-6", above=True, colour="#333333")
    log_axis(axes)
    axes.set_ylabel("gradient norm (L2, nats per token)")
    if len(runs) == 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _label_x(axes, against)
    return figure


def _norms(runs: Sequence[Curves], key: str) -> Iterator[tuple]:
    """Label, x, values, colour and line style of every curve of gradient norms."""
    if len(runs) > 1:
        for run, colour in zip(runs, COLOURS, strict=False):
            yield run.label, run.train[key], run.train["grad_norm"], colour, "-"
        return
    (run,) = runs
    parts = _by_depth(run.blocks)
    shades = colormaps["cividis"](np.linspace(0, 0.92, len(parts)))
    for (name, values), shade in zip(parts, shades, strict=True):
        yield name, run.train[key], values, shade, "-" if name.startswith("blocks.") else (0, (4, 2))
    yield "whole model", run.train[key], run.train["grad_norm"], COLOURS[1], "-"


def _draw_splits(axes: Axes, runs: Sequence[Curves], against: str, name: str) -> None:
    key = AGAINST[against]
    for run, (colour, held_out) in zip(runs, _colours(runs), strict=True):
        x, y = run.train[key], run.train[name]
        axes.plot(x, y, color=colour, alpha=0.3, linewidth=1)
        axes.plot(x, smooth(y), color=colour, linewidth=1.5)
        axes.plot(run.val[key], run.val[name], "o--", color=held_out, markersize=4, linewidth=1)
    colour, held_out = _colours(runs)[0] if len(runs) == 1 else (GREY, GREY)
    entries = [
        Line2D([], [], color=colour, linewidth=1.5, label="training"),
        Line2D([], [], color=held_out, marker="o", ms=4, linestyle="--", linewidth=1, label="validation"),
    ]
    legend_above(axes, entries)


def _colours(runs: Sequence[Curves]) -> list[tuple[str, str]]:
    """Training and validation colour of every run: one colour a run, two where there is one run."""
    return [COLOURS[:2]] if len(runs) == 1 else [(colour, colour) for colour in COLOURS[: len(runs)]]


def _draw_levels(axes: Axes, runs: Sequence[Curves], name: str, text: str, *, above: bool) -> None:
    values = [getattr(run, name) for run in runs]
    for value in sorted({value for value in values if value is not None}):
        colour = COLOURS[values.index(value)] if len(set(values)) > 1 else "#333333"
        mark_level(axes, value, text.format(value), above=above, colour=colour)


def _draw_moments(axes: Axes, runs: Sequence[Curves], against: str) -> None:
    """A dotted line where a run went on with a repaired recipe, and what was wrong, or cooled down early."""
    for run, (colour, _) in zip(runs, _colours(runs), strict=True):
        key = AGAINST[against]
        places: dict[float, list[str]] = {}
        for repair in run.repairs:
            places.setdefault(repair[key], []).append(repair["code"])
        texts = {place: "repaired: " + ", ".join(codes) for place, codes in places.items()}
        texts |= {c[key]: f"cool-down from step {c['weights_of']}" for c in run.cooldowns}
        for place, text in texts.items():
            mark_moment(axes, place, text, left=place > run.train[key][-1] / 2, colour=colour)


def _first_loss(runs: Sequence[Curves]) -> float:
    """The loss at the beginning: what a run that explodes is cut off at."""
    return max(float(run.val["loss"][0] if len(run.val["loss"]) else run.train["loss"][0]) for run in runs)


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred mean over about a fortieth of the values, shorter at both ends; NaN spreads no further."""
    half = len(values) // 80
    index = np.arange(len(values))
    reach = np.minimum(np.minimum(index, len(values) - 1 - index), half)
    return np.array([values[i - r : i + r + 1].mean() for i, r in zip(index, reach, strict=True)])


def _by_depth(blocks: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Embeddings first, then the blocks in their order, then what follows them."""

    def depth(name: str) -> tuple[int, int]:
        if name.startswith("blocks."):
            return 1, int(name.split(".")[1])
        return (0, 0) if name in ("embed", "position") else (2, 0)

    return sorted(blocks.items(), key=lambda item: depth(item[0]))


def _caption(runs: Sequence[Curves], smoothed: str | None = None) -> list[str | tuple[str, str]]:
    lines: list[str | tuple[str, str]] = [f"{run.label}: {run.facts}" for run in runs]
    if len(runs) > 1:
        lines = list(zip(lines, COLOURS, strict=False))
    if smoothed:
        lines.append(f"{smoothed}: as measured (faint) and its running mean")
    return lines


def _label_x(axes: Axes, against: str) -> None:
    axes.set_xlabel({"updates": "updates", "tokens": "real tokens trained on", "epochs": "epochs"}[against])
    axes.set_xlim(left=-0.01 * axes.get_xlim()[1])  # room for the marker at 0
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    """0.5, 500, 2,000, 1.5 M."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,g}" if value < 1e5 else f"{value:,.0f}"
