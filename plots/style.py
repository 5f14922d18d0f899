"""How every figure looks: size, fonts, colours, title and caption, and how it is saved."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mlxstories.errors import StoriesError
from mlxstories.runs.directory import writing

FORMATS = ("png", "svg", "pdf")

# Okabe and Ito (2008), told apart by colour-blind readers; yellow is left out, being too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#666666"

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # names of runs and arms are text
    "svg.hashsalt": "mlxstories",
    "pdf.fonttype": 42,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the house style without touching the style of whoever calls."""

    def in_style(*args, **options) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    in_style.__doc__ = draw.__doc__
    in_style.__name__ = draw.__name__
    return in_style


class HeadedFigure(Figure):
    """A figure that knows its title and the lines under it, each with the colour of its stroke or None."""

    title: str = ""
    caption: Sequence[tuple[str, str | None]] = ()

    def behead(self, width: float) -> None:
        """Take title and caption off, for a page that sets them itself, and make it ``width`` inches wide."""
        for artist in [*self.texts, *self.artists, *self.lines]:
            artist.remove()
        left, bottom, right, share = self.get_layout_engine().get()["rect"]
        self.get_layout_engine().set(rect=(left, bottom, right, 1))
        self.set_size_inches(width, share * self.get_size_inches()[1] * (0.4 + 0.6 * width / 8))


def new_figure(
    title: str, caption: Sequence[str | tuple[str, str]], heights: Sequence[float] = (4.2,)
) -> tuple[HeadedFigure, list[Axes]]:
    """A figure 8 inches (800 px in a README) wide, with a panel for each height in inches and one x axis.

    The lines of ``caption`` stand small under the title; a (text, colour) pair starts with a stroke of that
    colour and so is the legend of a curve.
    """
    head = 0.45 + 0.2 * len(caption)
    total = sum(heights) + head
    figure = HeadedFigure(figsize=(8, total), layout="constrained")
    figure.title = title
    figure.caption = [(line, None) if isinstance(line, str) else line for line in caption]
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - head / total), hspace=0.04)
    figure.text(0.012, 1 - 0.12 / total, title, va="top", size=14, weight="bold")
    for index, (text, colour) in enumerate(figure.caption):
        y = 1 - (0.5 + 0.2 * index) / total
        if colour:
            figure.add_artist(Line2D([0.013, 0.04], [y, y], color=colour, linewidth=3.5))
        figure.text(0.05 if colour else 0.012, y, text, va="center_baseline", size=9.5, color=GREY)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))
    return figure, list(grid[:, 0])


def mark_level(
    axes: Axes, value: float, text: str, *, above: bool, left: bool = False, colour: str = GREY
) -> None:
    """A dashed horizontal line with its name at the right end, or the left."""
    axes.axhline(value, color=colour, linestyle=(0, (5, 3)), linewidth=1.3, zorder=1.5)
    axes.annotate(
        text,
        (0 if left else 1, value),
        xycoords=("axes fraction", "data"),
        xytext=(2 if left else -2, 3 if above else -3),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom" if above else "top",
        color=colour,
        size=10,
    )


def mark_moment(axes: Axes, value: float, text: str, *, left: bool, colour: str = GREY) -> None:
    """A dotted vertical line with its name beside its foot, on the left or the right."""
    axes.axvline(value, color=colour, linestyle=(0, (1, 2)), linewidth=1.3, zorder=1.5)
    axes.annotate(
        text,
        (value, 0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, 4),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        color=colour,
        size=9,
    )


def legend_above(axes: Axes, handles: Sequence) -> None:
    """A legend in one row over the panel, where no curve can run into it."""
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), borderpad=0.2)


def log_axis(axes: Axes, unit: str = "", factor: float = 1) -> None:
    """Make the y axis of a finished panel logarithmic, in plain numbers of ``unit``, ``factor`` to 1."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    labelled = (1,) if high > 200 * low else (1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    axes.yaxis.set_major_locator(LogLocator(subs=labelled))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:g}{unit}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the file's suffix, whole or not at all.

    Raises:
        StoriesError: an unknown format, or a place that cannot be written.
    """
    if path.suffix[1:] not in FORMATS:
        raise StoriesError(f"{path.name} must end in one of {', '.join('.' + name for name in FORMATS)}.")
    dates = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # same run, same bytes
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as beside:
            written = Path(beside) / path.name
            with matplotlib.rc_context(STYLE), warnings.catch_warnings():
                # a name in a script that the font lacks is drawn as boxes
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
                figure.savefig(written, metadata=dates[path.suffix[1:]])
            written.replace(path)
    return path
