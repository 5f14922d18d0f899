"""Figures of a comparison: curves with intervals, differences, the scale curve, learning rates by arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlxstories.comparison.document import title
from mlxstories.comparison.statistics import estimate
from mlxstories.comparison.study import Row, Table
from mlxstories.plots.style import COLOURS, GREY, mark_level, new_figure, styled


def figures(tables: Sequence[Table]) -> dict[str, Figure]:
    """All figures that the comparison has data for, by name; those of a setting carry its number, from 1."""
    drawn: dict[str, Figure] = {}
    for number, table in enumerate(tables, 1):
        mark = f"-{number}" if len(tables) > 1 else ""
        if len(table.rows) <= len(COLOURS):
            drawn[f"curves{mark}"] = curves(table)
            if any(row.tuned for row in table.rows):
                drawn[f"rates{mark}"] = rates(table)
        if any(row.differences for row in table.rows):
            drawn[f"differences{mark}"] = differences(table)
    by_scale = {(t.setting.size, t.setting.budget): [] for t in tables}
    for table in tables:
        by_scale[table.setting.size, table.setting.budget].append(table)
    for (size, budget), same in by_scale.items():
        if len({table.setting.data.stories for table in same}) > 1 and len(same[0].rows) <= len(COLOURS):
            drawn[f"scale-{size}-{budget}"] = scale(same)
    return drawn


def _facts(table: Table) -> list[str]:
    seeds = len(table.rows[0].results)
    return [title(table), f"mean and 95 % interval over {seeds} seed{'s' * (seeds > 1)}"]


@styled
def curves(table: Table) -> Figure:
    """Validation loss of every arm over tokens, the mean over seeds and its interval."""
    figure, (axes,) = new_figure("Validation loss", _facts(table))
    for row, colour in zip(table.rows, COLOURS, strict=False):
        points = _curve(row)
        axes.plot(points["tokens"], points["mean"], color=colour, label=row.arm.name)
        axes.fill_between(
            points["tokens"], points["low"], points["high"], color=colour, alpha=0.2, linewidth=0
        )
    _floor(axes, table)
    axes.set(xlabel="tokens", ylabel="loss (nats per token)")
    axes.legend()
    return figure


def _curve(row: Row) -> dict[str, np.ndarray]:
    """Points that every seed has: a training that stopped early shortens the curve."""
    length = min(len(result["curve"]) for result in row.results)
    found = [estimate([result["curve"][i]["loss"] for result in row.results]) for i in range(length)]
    # Seeds pack their rows otherwise, so their tokens differ by a row or so.
    tokens = [np.mean([result["curve"][i]["tokens"] for result in row.results]) for i in range(length)]
    return {
        "tokens": np.array(tokens),
        "mean": np.array([e.mean for e in found]),
        "low": np.array([e.mean if e.low is None else e.low for e in found]),
        "high": np.array([e.mean if e.high is None else e.high for e in found]),
    }


@styled
def differences(table: Table) -> Figure:
    """A forest plot: each arm's loss minus the reference's, with its interval."""
    rows = [row for row in table.rows if row.differences]
    reference = table.rows[0].arm.name
    caption = [*_facts(table), f"paired with {reference} on the same seeds"]
    figure, (axes,) = new_figure(f"Difference in loss from {reference}", caption, (0.32 * len(rows) + 1,))
    for place, row in enumerate(rows):
        found = row.differences["loss"]
        colour = {"better": COLOURS[2], "worse": COLOURS[1]}.get(found.verdict, GREY)
        half = found.estimate.half
        axes.errorbar(found.estimate.mean, place, xerr=half, fmt="o", color=colour, capsize=3)
        axes.annotate(
            found.verdict,
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
            size=9,
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(
        xlabel="nats per token; left of 0 is better",
        yticks=range(len(rows)),
        yticklabels=[row.arm.name for row in rows],
        ylim=(len(rows) - 0.5, -0.5),
    )
    return figure


@styled
def scale(tables: Sequence[Table]) -> Figure:
    """Final loss over the number of stories, and where the first two arms cross."""
    tables = sorted(tables, key=lambda table: table.setting.data.stories)
    sizes = np.array([table.setting.data.stories for table in tables])
    setting = tables[0].setting
    tokens = max(result["tokens"] for row in tables[-1].rows for result in row.results)
    repeats = ", ".join(
        f"{t.setting.data.stories:,} stories {'once' if t.setting.epochs == 1 else f'{t.setting.epochs} times'}"
        for t in tables
    )
    caption = [
        f"size {setting.size}, about {tokens:,} tokens each, equal {setting.budget}",
        f"{repeats}; {_facts(tables[0])[1]}",
    ]
    figure, (axes,) = new_figure("Loss by number of stories", caption)
    means = {}
    for index, row in enumerate(tables[0].rows):
        found = [table.row(row.arm.name).estimate("loss") for table in tables]
        means[row.arm.name] = np.array([e.mean for e in found])
        halves = [e.half or 0 for e in found]
        axes.errorbar(
            sizes, means[row.arm.name], halves, fmt="o-", capsize=3, color=COLOURS[index], label=row.arm.name
        )
    first, second = list(means.values())[:2]
    for place in _crossings(np.log(sizes), second - first):
        axes.axvline(np.exp(place), color=GREY, linestyle=":")
        axes.annotate(f"cross at {np.exp(place):,.0f}", (np.exp(place), 0.95), xycoords=("data", "axes fraction"),
                      color=GREY, size=9)  # fmt: skip
    _floor(axes, tables[-1])
    axes.set(xscale="log", xlabel="training stories", ylabel="loss (nats per token)")
    axes.legend()
    return figure


def _crossings(x: np.ndarray, gap: np.ndarray) -> list[float]:
    """Where a piecewise linear gap changes its sign."""
    at = np.flatnonzero(np.sign(gap[:-1]) * np.sign(gap[1:]) < 0)
    return [float(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1])) for i in at]


@styled
def rates(table: Table) -> Figure:
    """Loss by learning rate of every arm, from the sweep with equal budget that chose its rate."""
    figure, (axes,) = new_figure(
        "Learning rates tried", [title(table), "one further seed; the least loss was taken"]
    )
    for row, colour in zip(table.rows, COLOURS, strict=False):
        tried = sorted((float(rate), loss) for rate, loss in (row.tuned or {}).items())
        axes.plot(*np.array(tried).T, "o-", color=colour, label=row.arm.name)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats per token)")
    axes.legend()
    return figure


def _floor(axes: Axes, table: Table) -> None:
    if table.floor is not None:
        # the curves come near it on the right
        mark_level(axes, table.floor, f"floor {table.floor:.3f}", above=True, left=True)
