"""Figures of a diagnosis, one for each rung that has one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mlxstories.comparison.debugging_story import MINIMAL
from mlxstories.ladder.diagnosis import Diagnosis
from mlxstories.plots.style import COLOURS, GREY, legend_above, mark_level, new_figure, styled
from mlxstories.plots.sweep import sweep


def figures(diagnosis: Diagnosis, *, story: bool = False) -> dict[str, Figure]:
    """Every figure that the climb has data for, by name; ``story`` marks the debugging story's own figures."""
    data = {name: value for rung in diagnosis.rungs for name, value in rung.figures.items()}
    name = [diagnosis.subject]
    drawn: dict[str, Figure] = {}
    if data.get("overfit"):
        drawn["overfit"] = overfit(data["overfit"], name, story)
    swept = [(p["rate"], p["accuracy"]) for p in data.get("sweep", ()) if p["rate"]]
    if swept:
        own = next((p["rate"] for p in data["sweep"] if p["scale"] == 1), None)
        steps = data["sweep"][0]["steps"]
        caption = [f"{diagnosis.subject}: accuracy on the minimal rows after {steps} updates"]
        drawn["sweep"] = sweep(swept, own=own, caption=caption, story=story)
    if data.get("gradients"):
        drawn["gradients"] = gradients(data["gradients"], name)
    if data.get("updates"):
        drawn["updates"] = updates(data["updates"], name)
    if data.get("short"):
        drawn["short"] = short(data["short"], name)
    if data.get("causality"):
        drawn["causality"] = causality(data["causality"], name)
    if data.get("exchange"):
        drawn["exchange"] = exchange(data["exchange"], name)
    return drawn


@styled
def exchange(data: Mapping[str, list], caption: list[str]) -> Figure:
    """Held-out loss over updates, the setup as it is and with parts exchanged, on the same batches."""
    figure, (axes,) = new_figure("Parts exchanged for plain ones", caption)
    for (label, curve), colour in zip(data.items(), [GREY, *COLOURS], strict=False):
        steps, losses = np.array(curve, dtype=np.float64).T
        axes.plot(steps, losses, "o-", color=colour, label=label, markersize=4)
    axes.set(xlabel="updates", ylabel="held-out loss (nats per token)")
    axes.legend()
    return figure


@styled
def overfit(data: Mapping, caption: list[str], story: bool) -> Figure:
    """Loss and accuracy on the minimal rows over updates."""
    figure, (top, bottom) = new_figure(f"Memorising {data['rows']} rows", caption, (2.6, 2.6))
    steps, losses, accuracies = np.array(data["points"], dtype=np.float64).T
    top.plot(steps, losses, "o-", color=COLOURS[0])
    top.set(ylabel="loss (nats per token)", ylim=(0, None))
    bottom.plot(steps, accuracies, "o-", color=COLOURS[0], label="here")
    if story:
        bottom.plot(*MINIMAL, "*", color=GREY, markersize=11, label="the story's")
        bottom.legend()
    bottom.set(ylabel="accuracy", xlabel="updates", ylim=(-0.03, 1.05))
    bottom.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


@styled
def gradients(data: Mapping[str, Mapping[str, float]], caption: list[str]) -> Figure:
    """Gradient norm of each parameter, untrained and a few steps on."""
    figure, axes, rows = _by_parameter("Gradient norm by parameter", "gradient norm", list(data), caption)
    handles = []
    for key, label, colour, marker in (
        ("first", "at the first step", COLOURS[0], "o"),
        ("later", "a few steps on", COLOURS[1], "s"),
    ):
        values = np.array([norms[key] for norms in data.values()])
        alive = values > 0
        handles += axes.plot(values[alive], rows[alive], marker, color=colour, label=label)
    dead = np.array([max(norms.values()) == 0 for norms in data.values()])
    for row in rows[dead]:
        axes.annotate(
            "no gradient", (0, row), xycoords=("axes fraction", "data"), va="center", color=COLOURS[1]
        )
    legend_above(axes, handles)
    return figure


@styled
def updates(data: Mapping[str, list[float]], caption: list[str]) -> Figure:
    """Size of each parameter's updates beside its own, over the first steps; about 1e-3 is usual."""
    figure, axes, rows = _by_parameter(
        "Update-to-weight ratio by parameter",
        "norm of the update / norm of the weights",
        list(data),
        [*caption, "the first updates, from least to most, and their median"],
    )
    for row, ratios in zip(rows, data.values(), strict=True):
        moved = [ratio for ratio in ratios if ratio > 0]
        if moved:
            axes.plot([min(moved), max(moved)], [row, row], color=GREY, linewidth=1.2)
            axes.plot(np.median(moved), row, "o", color=COLOURS[0])
        else:
            axes.annotate(
                "never moves", (0, row), xycoords=("axes fraction", "data"), va="center", color=COLOURS[1]
            )
    return figure


def _by_parameter(
    title: str, unit: str, names: list[str], caption: list[str]
) -> tuple[Figure, Axes, np.ndarray]:
    """A logarithmic panel with a row for each parameter."""
    figure, (axes,) = new_figure(title, caption, (max(2.5, 0.22 * len(names) + 1.2),))
    rows = np.arange(len(names))
    axes.set(xscale="log", xlabel=unit, yticks=rows, yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(axis="y", labelsize=8)
    return figure, axes, rows


@styled
def short(data: Mapping, caption: list[str]) -> Figure:
    """The short training against its baselines."""
    figure, (axes,) = new_figure("A short training", caption)
    axes.plot(np.arange(1, len(data["losses"]) + 1), data["losses"], color=GREY, linewidth=1, label="batches")
    if data["points"]:
        steps, losses, _ = np.array(data["points"], dtype=np.float64).T
        axes.plot(steps, losses, "o-", color=COLOURS[0], label="held-out rows")
    for key, colour in (("unigram", COLOURS[1]), ("bigram", COLOURS[2]), ("floor", COLOURS[3])):
        if data.get(key) is not None:
            mark_level(axes, data[key], key, above=True, colour=colour)
    axes.set(xlabel="updates", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    return figure


@styled
def causality(matrix: list[list[float]], caption: list[str]) -> Figure:
    """Which position's logits (row) move when the token at a position (column) changes."""
    table = np.array(matrix)
    figure, (axes,) = new_figure("Which position sees which", caption, (5.5,))
    image = axes.imshow(np.log10(np.maximum(table, 1e-8)), cmap="Blues", vmin=-8, vmax=0)
    figure.colorbar(image, ax=axes, label="change of the logits, log10 of its share of the largest")
    size = len(table)
    axes.plot([-0.5, size - 0.5], [-0.5, size - 0.5], color=COLOURS[1], linewidth=1)
    axes.set(xlabel="position changed", ylabel="position that reads it; above the line lies the future")
    axes.grid(False)
    return figure
