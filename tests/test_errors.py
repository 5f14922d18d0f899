"""Messages: one printable line of a bounded length, whatever they were made of."""

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import LONGEST, StoriesError, listed


def test_a_long_message_keeps_its_ends_and_says_what_is_left_out():
    text = str(StoriesError("a.txt is odd: " + "x" * 50_000 + "; give another"))
    assert text.startswith("a.txt is odd") and text.endswith("give another")
    assert len(text) < LONGEST + 50 and "49,028 characters left out" in text


def test_what_cannot_be_printed_is_made_visible():
    assert str(StoriesError("a\nb\udcff\x1b")) == "a b\\udcff\\x1b"


def test_many_names_are_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(3000), most=2) == "0, 1 and 2,998 more"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--layers", "9" * 5000],
        ["train", "--norm", "x" * 5000],
        ["train", "--" + "x" * 5000],
        ["data", "show", "--data", "x" * 5000],
        ["sample", "--prompt", "Tom \udcff ran"],
        ["compare", "--scale", "x," * 5000],
    ],
)
def test_options_of_any_length_are_refused_in_a_line_to_be_read(words):
    result = CliRunner().invoke(main, words)
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and last.startswith("Error: ") and len(last) < 2 * LONGEST
