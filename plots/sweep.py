"""What a learning-rate sweep found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from mlxstories.comparison.debugging_story import SWEEP
from mlxstories.errors import StoriesError
from mlxstories.plots.style import COLOURS, GREY, new_figure, styled


@styled
def sweep(
    results: Mapping[str, Sequence[tuple[float, float]]],
    *,
    quantity: str = "accuracy",
    own: float | None = None,
    caption: Sequence[str] = (),
    story: bool = False,
) -> Figure:
    """Accuracy (share) or loss (nats per token) over the learning rate, on a logarithmic axis.

    Args:
        results: for each label, (learning rate, value) pairs; not finite is shown as diverged.
        quantity: "accuracy" or "loss".
        own: the subject's own learning rate, marked by a vertical line.
        caption: lines under the title.
        story: also mark the points of the story's sweep (accuracy only).
    """
    if quantity not in ("accuracy", "loss"):
        raise StoriesError(f"quantity must be accuracy or loss; got {quantity!r}.")
    if not any(results.values()):
        raise StoriesError("a sweep without a single learning rate cannot be drawn.")
    figure, (axes,) = new_figure("Learning-rate sweep", caption)
    diverged = []
    for (label, pairs), colour in zip(results.items(), COLOURS, strict=False):
        rates, values = np.array(sorted(pairs), dtype=np.float64).T
        finite = np.isfinite(values)
        axes.plot(rates[finite], values[finite], "o-", color=colour, label=label)
        diverged.extend(rates[~finite])
    if diverged:
        top = axes.get_xaxis_transform()
        axes.plot(
            diverged,
            [0.97] * len(diverged),
            "x",
            color=COLOURS[1],
            ms=8,
            mew=2,
            transform=top,
            label="diverged",
        )
    if story and quantity == "accuracy":
        axes.plot(
            *zip(*SWEEP.items(), strict=True),
            "*",
            color=GREY,
            markersize=11,
            label="the story's claim",
            zorder=3,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    if own is not None:
        axes.axvline(own, color=GREY, linestyle=(0, (5, 3)), linewidth=1.3)
        where = axes.get_xaxis_transform()
        axes.text(
            own, 1.0, f" own rate {own:g}", transform=where, color=GREY, size=10, va="bottom", ha="center"
        )
    axes.set_xlabel("learning rate")
    if quantity == "accuracy":
        axes.set(ylabel="accuracy (share of real tokens)", ylim=(-0.03, 1.05))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set(ylabel="loss (nats per token)", ylim=(0, None))
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
