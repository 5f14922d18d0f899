"""The report's colours, on light and on dark paper, and figures' colours made legible on both."""

from __future__ import annotations

import colorsys

TEXT, GRAPHIC = 4.5, 3.0  # least contrast, WCAG 2.2, 1.4.3 and 1.4.11

# name: (on light paper, on dark paper)
COLOURS = {
    "paper": ("#fdfcf9", "#16171a"),
    "panel": ("#f5f3ed", "#1e2024"),
    "ink": ("#1f1d1a", "#e9e6e0"),
    "muted": ("#5b5750", "#aaa69d"),
    "rule": ("#dcd7cc", "#373a40"),
    "link": ("#0a5689", "#85bfec"),
    "good": ("#1b6638", "#84cf9f"),
    "warning": ("#7a4f00", "#e3b767"),
    "error": ("#9c2219", "#f39c92"),
    # Behind a token: the paler, the surer the model was of it.
    "sure-1": ("#eef1ea", "#22262a"),
    "sure-2": ("#f4ecd0", "#33301f"),
    "sure-3": ("#f8dfb0", "#4a3a1c"),
    "sure-4": ("#f6c9ae", "#69351f"),
}

# What the figures draw for reading, against what they draw to tell apart.
_ROLES = {"#000000": "ink", "#333333": "ink", "#666666": "muted", "#dddddd": "rule", "#ffffff": "paper"}


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours #rrggbb (WCAG 2.2), 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def legible(colour: str, paper: str, least: float) -> str:
    """The colour, moved towards black or white until it stands out from the paper."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_rgb(colour))
    towards = 0.0 if _luminance(paper) > 0.2 else 1.0
    for part in range(101):
        moved = colorsys.hls_to_rgb(hue, lightness + (towards - lightness) * part / 100, saturation)
        found = "#" + "".join(f"{round(255 * value):02x}" for value in moved)
        if contrast(found, paper) >= least:
            return found
    raise ValueError(f"no contrast of {least} with {paper}")


def variable(colour: str, *, text: bool) -> str:
    """The name of the CSS variable that stands for a colour of a figure, #rrggbb."""
    return _ROLES.get(colour) or f"{'t' if text else 'g'}-{colour[1:]}"


def style(drawn: set[tuple[str, bool]]) -> dict[str, dict[str, str]]:
    """``{"light": {variable: colour}, "dark": ...}`` of the page and of what figures draw, (colour, is text)."""
    schemes = {}
    for index, scheme in enumerate(("light", "dark")):
        paper = COLOURS["paper"][index]
        schemes[scheme] = {name: pair[index] for name, pair in COLOURS.items()} | {
            variable(colour, text=text): legible(colour, paper, TEXT if text else GRAPHIC)
            for colour, text in sorted(drawn)
            if colour not in _ROLES
        }
    return schemes


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in _rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
