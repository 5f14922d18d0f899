"""How commands write durations, wrap texts and say what is left of a training."""

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from mlxstories.cli.fault_list import list_faults
from mlxstories.cli.ladder_screen import LadderScreen
from mlxstories.cli.text_output import GrowingText, continued, styled, wrapped
from mlxstories.cli.time_left import TimeLeft
from mlxstories.cli.training_screen import TrainingScreen
from mlxstories.durations import between, duration
from mlxstories.faults import FAULTS


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (100, "1.7 min"), (600, "10 min"), (9000, "2.5 h")]
)
def test_a_duration_is_given_in_its_own_unit(seconds, words):
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
    code = "from mlxstories.cli.text_output import wrapped; print(wrapped('word ' * 100, '  '))"
    subprocess.run(
        [sys.executable, "-c", code], stdout=follower, env={**os.environ, "COLUMNS": "60"}, check=True
    )
    os.close(follower)
    lines = os.read(leader, 10_000).decode().splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 60 and all(line.startswith("  word") for line in lines)


def test_a_long_command_is_continued_as_a_shell_takes_it():
    leader, follower = pty.openpty()
    os.set_blocking(leader, True)
    command = "$ mlxstories train " + " ".join(f'--option-{n} "{n} of 12"' for n in range(12))
    code = f"from mlxstories.cli.text_output import continued; print(continued({command!r}))"
    subprocess.run(
        [sys.executable, "-c", code], stdout=follower, env={**os.environ, "COLUMNS": "60"}, check=True
    )
    os.close(follower)
    shown = os.read(leader, 10_000).decode().replace("\r", "")
    assert max(map(len, shown.splitlines())) <= 60
    assert all(f'"{n} of 12"' in shown for n in range(12))
    assert " ".join(shown.replace(" \\\n", " ").split()) == command
    assert continued(command) == command  # where standard output is no terminal


def test_signs_are_those_that_the_encoding_has():
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("utf-8", "ascii")]
    signs = [set(LadderScreen(stream).marks.values()) for stream in streams]
    assert signs == [set("✓✗–!"), set("+x-!")]


def test_fix_stands_out():
    styles = {str(span.style) for span in styled("error: no-update: it is. Fix: do it.").spans}
    assert styles == {"bold red", "bold green"}
    assert not styled("no errors here").spans


@pytest.mark.parametrize(
    "steps, clock, told",
    [
        ((0, 10, 20, 30, 40), [100, 110, 120, 130, 140], ["", 90, 80, 70, 60]),  # a second an update
        ((0, 10, 20, 30, 40), [100, 110, 120, 150, 180], ["", 90, 80, 140, 180]),  # three, since others came
        ((0, 10, 20, 30, 40), [100, 130, 160, 170, 180], ["", 270, 240, 140, 60]),  # one again
        (
            (0, 20, 40, 60, 80),
            [100, 120, 140, 200, 260],
            ["", 80, 60, 80, 60],
        ),  # over the last 40 of 60 and of 80
    ],
)
def test_the_time_left_is_that_of_the_last_half_and_of_twenty_updates(monkeypatch, steps, clock, told):
    show, now = TrainingScreen(quiet=True), iter(map(float, clock))
    show.total, show.pace = 100, TimeLeft(20)
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    expected = [f"  {duration(seconds)} left" if seconds else "" for seconds in told]
    assert [show._left(step) for step in steps] == expected


def test_no_time_is_left_at_the_end_nor_told_where_a_repair_went_back(monkeypatch):
    show = TrainingScreen(quiet=True)
    show.total, show.pace = 30, TimeLeft(20)
    monkeypatch.setattr("time.monotonic", iter([100.0, 110.0, 115.0, 125.0, 135.0]).__next__)
    assert [show._left(step) for step in (10, 20, 10, 20, 30)] == ["", "  10 s left", "", "  10 s left", ""]


class Terminal(io.StringIO):
    """Standard output for a ``with`` block, as a terminal."""

    def __init__(self, columns: int = 40):
        super().__init__()
        self.columns = columns

    def isatty(self):
        return True

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(pytest.MonkeyPatch.context()).setenv("COLUMNS", str(self.columns))
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
        screen = GrowingText()
        for start in range(0, len(text), 3):
            screen.add(text[start : start + 3])
        screen.end()
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 40 and len(lines) == 4 and lines[2] == "Toto ran."
    assert " ".join(" ".join(lines).split()) == text.replace("\n", " ")


def test_the_list_of_faults_breaks_between_words_beside_their_names():
    with Terminal(80) as terminal:
        list_faults()
    heading, _, listed = terminal.getvalue().partition("\n\n")
    lines = listed.splitlines()
    assert max(map(len, lines)) <= 80 and heading.startswith("Faults for --break")
    shown = " ".join(terminal.getvalue().split())
    width = max(map(len, FAULTS))
    for fault in FAULTS.values():
        by = "" if fault.severity == "error" else ", a warning"
        assert f"{fault.name} {' '.join(fault.description.split())} [{fault.code}{by}]" in shown
    starts = [start for line in lines if (start := line[: width + 4].strip())]
    assert sorted(starts) == sorted([*FAULTS, *{fault.group for fault in FAULTS.values()}])  # each once
