"""Front matter: titles, dates and tags that stand before the text of a Markdown file, between two lines of their own.

A site or a collection of notes is told by them, and no reader: YAML in Jekyll and Obsidian, TOML in Hugo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from mlxstories.data.encodings import lines

MARKDOWN = {".md", ".markdown"}
_ENDS = {"---": ("---", "..."), "+++": ("+++",)}  # by the line that begins it
_LONGEST = 500  # lines; where none of these ends it, it is text
_FIELD = re.compile(r"[\"']?[\w.-]+[\"']?\s*[:=](\s|$)|\[")
_FURTHER = re.compile(r"\s|#|-|[\]})]|$")  # what a field goes on with, and comments


def text_of(path: Path) -> tuple[Iterator[str], bool]:
    """The lines of a text file without its front matter, and whether it has any.

    Raises:
        StoriesError: as `lines`, now or while the lines are taken.
    """
    read = lines(path)
    if path.suffix.lower() not in MARKDOWN:
        return read, False
    held = list(islice(read, 1))
    ends = _ENDS.get(held[0].rstrip()) if held else None
    for line in islice(read, _LONGEST) if ends else ():
        if line.rstrip() in ends:
            if any(map(_FIELD.match, held[1:])):
                return read, True
            held.append(line)
            break
        held.append(line)
        if not (_FIELD.match(line) or _FURTHER.match(line)):
            break
    return chain(held, read), False
