"""Lines that were broken at a width become paragraphs again, and lines that end by themselves stay."""

from __future__ import annotations

import textwrap

import pytest

from mlxstories.data import source
from mlxstories.data.folder import remarks
from mlxstories.data.paragraphs import joined, width_of
from mlxstories.data.readers import read_documents

VERSE = """The owl and the pussy-cat went to sea
In a beautiful pea-green boat,
They took some honey, and plenty of money,
Wrapped up in a five-pound note.
The owl looked up to the stars above,
And sang to a small guitar,
O lovely Pussy! O Pussy, my love,
What a beautiful Pussy you are,
You are,
You are!
What a beautiful Pussy you are!
Pussy said to the owl, You elegant fowl,
How charmingly sweet you sing!
O let us be married, too long we have tarried,
But what shall we do for a ring?
"""


def broken(paragraphs: list[str], width: int) -> str:
    return "\n".join(textwrap.fill(p, width, break_on_hyphens=False) for p in paragraphs)


@pytest.fixture(scope="module")
def paragraphs() -> list[str]:
    return [" ".join(text.split()) for text in source.texts(12, 1)]


@pytest.mark.parametrize("width", [50, 67, 90])
def test_broken_paragraphs_come_out_whole(paragraphs, width):
    text = broken(paragraphs, width)
    assert abs(width_of(text.split("\n")) - width) <= 1
    whole = joined(text, width).split("\n")
    # a last line that is nearly full is taken for a broken one, or not
    assert len(whole) < 1.2 * len(paragraphs)
    assert " ".join(whole) == " ".join(paragraphs)


def test_blank_lines_indents_bullets_and_dashes_are_kept():
    broken = "Tom went to the well—\nand saw there a well-\nknown frog."
    rest = "\n\nIt sat there all day,\n    and sat\n- one\nand so on"
    assert joined(broken + rest, 22) == f"Tom went to the well—and saw there a well-known frog.{rest}"


@pytest.mark.parametrize(
    "text",
    [
        VERSE * 3,
        "emma\nolivia\nava\nisabella\nsophia\n" * 20,
        "\n".join(f"{n:>30},{n * n:>30}" for n in range(50)),
        "Once upon a time there was a frog, and it sat in a well and waited for rain to come.\n" * 4,
        "One paragraph on one line, however long it is, " * 40,
        "",
    ],
    ids=["verse", "names", "table", "sentences", "one line", "nothing"],
)
def test_lines_that_end_by_themselves_are_left(text):
    assert width_of(text.split("\n")) is None


def test_files_are_read_in_paragraphs_and_it_is_said(tmp_path, paragraphs):
    (tmp_path / "a.txt").write_bytes(broken(paragraphs, 67).replace("\n", "\r\n").encode())
    (tmp_path / "b.txt").write_text(VERSE)
    prose, verse = read_documents([tmp_path])
    assert " ".join(prose.split("\n")) == " ".join(paragraphs) and verse == VERSE.strip("\n")
    (said,) = [line for line in remarks([tmp_path]) if "broken" in line]
    assert not [line for line in remarks([tmp_path], separator="line") if "broken" in line]
    each = [line for line in (broken(paragraphs, 67) + "\n" + VERSE).split("\n") if line.strip()]
    assert list(read_documents([tmp_path], separator="line")) == each
    assert said.startswith("1 file has lines broken at about 6") and said.endswith("joined to paragraphs")
