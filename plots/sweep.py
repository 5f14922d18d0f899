"""What a learning-rate sweep found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from mlxstories.comparison.debugging_story import SWEEP
from mlxstories.errors import StoriesError
from mlxstories.plots.style import COLOURS, GREY, new_figure, styled


@styled
def sweep(
    points: Sequence[tuple[float, float]],
    *,
    own: float | None = None,
    caption: Sequence[str] = (),
    story: bool = False,
) -> Figure:
    """Accuracy (share) over the learning rate, on a logarithmic axis.

    Args:
        points: (learning rate, accuracy) pairs; an accuracy that is not finite is shown as diverged.
        own: the subject's own learning rate, marked by a vertical line.
        caption: lines under the title.
        story: also mark the points of the story's sweep.
    """
    if not points:
        raise StoriesError("a sweep without a single learning rate cannot be drawn.")
    figure, (axes,) = new_figure("Learning-rate sweep", caption)
    rates, values = np.array(sorted(points), dtype=np.float64).T
    finite = np.isfinite(values)
    axes.plot(rates[finite], values[finite], "o-", color=COLOURS[0], label="here")
    in_axes = axes.get_xaxis_transform()
    if not finite.all():
        diverged = rates[~finite]
        mark = {"color": COLOURS[1], "ms": 8, "mew": 2, "transform": in_axes, "label": "diverged"}
        axes.plot(diverged, np.full(len(diverged), 0.97), "x", **mark)
    if story:
        mark = {"color": GREY, "markersize": 11, "label": "the story's claim", "zorder": 3}
        axes.plot(*zip(*SWEEP.items(), strict=True), "*", **mark)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    if own is not None:
        axes.axvline(own, color=GREY, linestyle=(0, (5, 3)), linewidth=1.3)
        place = {"transform": in_axes, "va": "bottom", "ha": "center"}
        axes.text(own, 1.0, f" own rate {own:g}", color=GREY, size=10, **place)
    axes.set(xlabel="learning rate", ylabel="accuracy (share of real tokens)", ylim=(-0.03, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
