"""Figures as inline SVG that takes its colours from the page, and so follows it into the dark."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.colors import to_hex

from mlxstories.plots.report.palette import variable
from mlxstories.plots.style import STYLE, HeadedFigure

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_WIDTH = 5.6  # inches: half of a wide page; on a phone the text is still read


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        name: its id in the page.
        title, caption: the words over the figure; a caption line has the CSS colour of the curve it is the key to.
        alternative: what it shows, for those who do not see it.
        svg: the drawing.
        colours: (#rrggbb, whether it is that of text) of everything drawn.
    """

    name: str
    title: str
    caption: list[tuple[str, str | None]]
    alternative: str
    svg: Markup
    colours: frozenset[tuple[str, bool]]


def drawing(name: str, figure: HeadedFigure, alternative: str) -> Drawing:
    """Take the head off a figure and turn what remains into SVG."""
    figure.behead(_WIDTH)
    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    colours: set[tuple[str, bool]] = set()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _recolour(element, colours)
        _rename(element, name)
        if "d" in element.attrib:
            element.set("d", re.sub(r"(\.\d\d)\d+", r"\1", " ".join(element.get("d").split())))
    root.attrib = {
        "viewBox": root.get("viewBox"),
        "role": "img",
        "aria-label": alternative,
        "preserveAspectRatio": "xMidYMid meet",
    }
    ElementTree.register_namespace("", _SVG[1:-1])
    caption = []
    for text, colour in figure.caption:
        hex_colour = to_hex(colour) if colour else None
        if hex_colour:
            colours.add((hex_colour, False))
        caption.append((text, f"var(--{variable(hex_colour, text=False)})" if hex_colour else None))
    text = ElementTree.tostring(root, encoding="unicode")
    return Drawing(name, figure.title, caption, alternative, Markup(text), frozenset(colours))


def _recolour(element: ElementTree.Element, colours: set[tuple[str, bool]]) -> None:
    is_text = element.tag == f"{_SVG}text"

    def replace(match: re.Match) -> str:
        colour = match[0].lower()
        colours.add((colour, is_text))
        return f"var(--{variable(colour, text=is_text)})"

    style = element.get("style")
    if style:
        style = _COLOUR.sub(replace, style)
        style = re.sub(r"'DejaVu Sans'[^;]*", "var(--sans)", style)
        element.set("style", style)
    if is_text and "fill:" not in (style or ""):
        element.set("style", f"{style or ''}; fill: var(--ink)")
    for name in ("fill", "stroke"):
        if element.get(name, "").startswith("#"):
            element.set(name, _COLOUR.sub(replace, element.get(name)))


def _rename(element: ElementTree.Element, prefix: str) -> None:
    """Ids are unique in a figure, and with its name in the page."""
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.get('id')}")
    if _XLINK in element.attrib:
        element.set("href", element.attrib.pop(_XLINK).replace("#", f"#{prefix}-"))
    for name, value in element.attrib.items():
        if "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
