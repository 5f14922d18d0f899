"""Hostile inputs thought up by hand: each is taken, or refused in one line that leaves nothing behind.

    python benchmarks/by_hand.py --json by_hand.json

What counts as a failure: a traceback, an exit code that the pages do not tell, a refusal of more than one printable
line of at most 1,100 characters, a file made or changed by a command that refuses, more than 10 s of CPU time, or 1 GiB
more memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from fuzz import CPU_SECONDS, MEMORY, cpu_limit, memory_limit
from hostile_cases import COMPARE, FIELDS, OWN, REFUSED, TAKEN, TEXTS, TRAIN, arms

from mlxstories.cli import main as cli

LONGEST = 1100  # characters of a line that refuses
_STORIES = "\n\n".join(f"Tom saw {i} birds by the sea." for i in range(12))


@dataclass(frozen=True)
class Case:
    """A command, as words, what lies in a file for it, and its exit code where the pages tell it."""

    kind: str
    words: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    code: int | None = None


def cases(folder: Path) -> Iterator[Case]:
    """All of them; ``folder`` holds the good files that some are edited from."""
    for rows, code in ((REFUSED, 2), (TAKEN, 0)):
        for command, values in rows:
            listed = isinstance(values, list)
            for value in values if listed else values.split():
                yield Case(command.split()[0].strip("{*}") or "no command", _words(command, value), {}, code)
    for name, content in TEXTS:
        for command in ("data show --data", "data stats --validation 1 --data", OWN):
            yield Case("texts", (*command.split(), name), {name: content})
    for path, name, values, commands in FIELDS:
        for value in values:
            content = json.dumps(_edited(json.loads((folder / path).read_text()), name.split("."), value))
            for command in commands:
                yield Case(path, tuple(command.split()), {path: content})
    for text in arms():
        yield Case("arms", (*COMPARE.split(), "--arms", "arms.json"), {"arms.json": text}, 2)


def _words(command: str, value: str) -> tuple[str, ...]:
    """The command's words with the value among them."""
    before, several, after = command.partition("{*}")
    if several:
        return (*before.split(), *value.split(" "), *after.split())
    return tuple(word.replace("{}", value) for word in command.split())


def _edited(value, path: list[str], new):
    """A JSON value with one member replaced."""
    if not path:
        return new
    value = value if isinstance(value, dict) else {}
    return value | {path[0]: _edited(value.get(path[0]), path[1:], new)}


def furnish(folder: Path) -> None:
    """Good files, for the commands to find."""
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text(_STORIES)
    (folder / "a.json").write_text("".join(json.dumps({"x": s}) + "\n" for s in _STORIES.split("\n\n")))
    for command in (
        f"{TRAIN} --phase 1 --name run",
        "export run --to exported",
        "data prepare a.txt --to prepared",
    ):
        done = CliRunner().invoke(cli, command.split())
        assert done.exit_code == 0, done.output


def state(folder: Path) -> dict[str, tuple]:
    """Each file, its size and when it was changed."""
    found = {}
    for path in folder.rglob("*"):
        if path.name != ".lock" and "__pycache__" not in path.parts:
            stat = path.lstat()
            found[str(path.relative_to(folder))] = path.is_dir() or (stat.st_size, stat.st_mtime_ns)
    return found


def failure(case: Case) -> str | None:
    """What is wrong with how a command ends, in the working directory."""
    before = state(Path.cwd())
    try:
        with cpu_limit(CPU_SECONDS), memory_limit(MEMORY):
            done = CliRunner().invoke(cli, list(case.words))
    except AssertionError as error:
        return str(error)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"raises {done.exception!r}"[:300]
    if done.exit_code not in ((0, 1, 2) if case.code is None else (case.code,)):
        return f"exit code {done.exit_code}: {(done.stderr or done.stdout)[-300:]!r}"
    if done.exit_code != 2:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    if len(lines) != 1 or lines != done.stderr.splitlines()[-1:]:
        return f"not one line: {done.stderr[-300:]!r}"
    if len(lines[0]) > LONGEST or not lines[0].isprintable():
        return f"a line of {len(lines[0])} characters: {lines[0][:100]!r}"
    after = state(Path.cwd())
    left = sorted(name for name in before | after if before.get(name) != after.get(name))
    return f"left behind or changed: {left[:5]}" if left else None


def outcomes(folder: Path, wanted: Callable[[int, Case], bool]) -> Iterator[tuple[Case, str | None]]:
    """The wanted cases, by number and content, each with what is wrong with how it ends."""
    good, here, before = folder / "good", folder / "here", Path.cwd()
    good.mkdir()
    os.chdir(good)
    try:
        furnish(good)
        clean = None
        for number, case in enumerate(cases(good)):
            if not wanted(number, case):
                continue
            if clean is None or state(here) != clean:
                os.chdir(good)
                shutil.rmtree(here, ignore_errors=True)
                shutil.copytree(good, here)
                clean = state(here)
                os.chdir(here)
            for file, content in case.files.items():
                Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
            yield case, failure(case)
    finally:
        os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", help="these alone")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    counts: dict[str, Counter] = {}
    failed = []
    path = options.json and options.json.resolve()
    with tempfile.TemporaryDirectory(prefix="by-hand-") as folder:
        for case, wrong in outcomes(Path(folder), lambda _, case: options.kind in (None, case.kind)):
            row = counts.setdefault(case.kind, Counter())
            row["cases"] += 1
            if wrong:
                row["failed"] += 1
                content = repr(next(iter(case.files.values()), ""))[:200]
                failed.append({"words": case.words, "content": content, "wrong": wrong})
                print(*(word[:60] for word in case.words), content, "\n  ", wrong, flush=True)
    for kind, row in counts.items():
        print(f"{kind:>24}: {row['cases']:4} cases, {row['failed']} failed")
    print(f"{sum(row['cases'] for row in counts.values())} cases, {len(failed)} failed")
    if path:
        path.write_text(json.dumps({"kinds": counts, "failed": failed}, indent=1) + "\n")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
