"""How commands write durations, wrap texts and say what is left of a training."""

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from mlxstories.cli.display import Display
from mlxstories.cli.screen import Ladder
from mlxstories.cli.words import Growing, continued, styled, wrapped
from mlxstories.durations import between, duration


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (100, "1.7 min"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("shortest", "longest", "words"),
    [(40, 55, "40 to 55 s"), (90, 150, "1.5 to 2.5 min"), (40, 40.2, "40 s")],
)
def test_a_range_has_one_unit(shortest, longest, words):
    assert between(shortest, longest) == words


def test_without_a_terminal_nothing_is_wrapped():
    assert wrapped("word " * 100) == "word " * 100


def test_at_a_terminal_lines_fit():
    leader, follower = pty.openpty()
    os.set_blocking(leader, True)
    code = "from mlxstories.cli.words import wrapped; print(wrapped('word ' * 100, '  '))"
    subprocess.run(
        [sys.executable, "-c", code], stdout=follower, env={**os.environ, "COLUMNS": "60"}, check=True
    )
    os.close(follower)
    lines = os.read(leader, 10_000).decode().splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 60 and all(line.startswith("  word") for line in lines)


def test_a_long_command_is_continued_as_a_shell_takes_it():
    leader, follower = pty.openpty()
    os.set_blocking(leader, True)
    command = "$ mlxstories train " + " ".join(f"--option-{n} {n}" for n in range(12))
    code = f"from mlxstories.cli.words import continued; print(continued({command!r}))"
    subprocess.run(
        [sys.executable, "-c", code], stdout=follower, env={**os.environ, "COLUMNS": "60"}, check=True
    )
    os.close(follower)
    shown = os.read(leader, 10_000).decode().replace("\r", "")
    assert max(map(len, shown.splitlines())) <= 60
    assert " ".join(shown.replace(" \\\n", " ").split()) == command
    assert continued(command) == command  # where standard output is no terminal


def test_signs_are_those_that_the_encoding_has():
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("utf-8", "ascii")]
    signs = [set(Ladder(stream).marks.values()) for stream in streams]
    assert signs == [set("✓✗–"), set("+x-")]


def test_fix_stands_out():
    styles = {str(span.style) for span in styled("error: no-update: it is. Fix: do it.").spans}
    assert styles == {"bold red", "bold green"}
    assert not styled("no errors here").spans


def test_the_time_left_follows_the_pace(monkeypatch):
    show, now = Display(quiet=True), iter([100.0, 110.0, 140.0])
    show.total = 100
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    assert [show._left(step) for step in (10, 20, 30)] == ["", "  80 s left", "  2.3 min left"]


class Terminal(io.StringIO):
    """Standard output for a ``with`` block, as a terminal of 40 columns."""

    def isatty(self):
        return True

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(pytest.MonkeyPatch.context()).setenv("COLUMNS", "40")
        self.stack.enter_context(contextlib.redirect_stdout(self))
        return self

    def __exit__(self, *_):
        self.stack.close()


def test_control_characters_do_not_reach_a_terminal():
    with Terminal():
        assert wrapped("a\x1b[2Jb\x07c\x7f\td\u00ad") == "a\ufffd[2Jb\ufffdc\ufffd       d\u00ad"
    assert wrapped("a\x1bb", stream=io.StringIO()) == "a\x1bb"


def test_a_growing_text_breaks_between_words():
    text = "The lion and the scarecrow walked along the road of yellow brick.\nToto ran."
    with Terminal() as terminal:
        screen = Growing()
        for start in range(0, len(text), 3):
            screen.add(text[start : start + 3])
        screen.end()
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 40 and len(lines) == 4 and lines[2] == "Toto ran."
    assert " ".join(" ".join(lines).split()) == text.replace("\n", " ")
