"""`debug --deep` on cases with known answers, one at a time, and the table of docs/deep.md.

    python benchmarks/deep.py benchmarks/reported --json deep.json
    python benchmarks/deep.py benchmarks/reported --json deep.json --docs docs/deep.md --mark reported --most 0

The folder is one of `benchmarks/public_bugs.py`. Results are written after each case, and a case that has one is not
run again, so that a long run can be broken off and gone on with; those of several folders may go into one file.
With ``--alone`` the ladder only looks at the data first, so that what is found is found by the exchange.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from deep_table import Judged, in_words, parts_of, short, table, together
from public_bugs import load

_FILE = click.Path(dir_okay=False, path_type=Path)


def judge(folder: Path, name: str, expected: dict, modules: dict[Path, ModuleType], alone: bool) -> Judged:
    """One case through the ladder and the exchange, seed 0."""
    from mlxstories.findings import cause_of
    from mlxstories.ladder import diagnose
    from mlxstories.ladder.exchange import deepened

    file, _, function = name.partition(":")
    subject = getattr(load(folder / file, modules), function)()
    begun = time.process_time()
    climbed = diagnose(subject, rungs=["data"] if alone else None)
    between = time.process_time()
    found = deepened(climbed, subject)
    ended = time.process_time()

    def told(severity: str) -> list[list[str]]:
        return [[f.code, _part(f), f.message] for f in found.findings if f.severity == severity]

    def _part(finding) -> str:
        return finding.evidence.get("part") or cause_of(finding.code).part

    made = found.rungs[-1].figures.get("exchange", {})
    return Judged(
        case=name,
        **_answer(folder, name, expected, modules),
        alone=alone,
        errors=told("error"),
        warnings=told("warning"),
        exchanged=[
            [f.severity, _part(f), f.message]
            for f in (*found.findings, *found.consequences)
            if f.rung == "exchange"
        ],
        losses={run: curve[-1][1] for run, curve in made.items()},
        climb=between - begun,
        exchange=ended - between,
    )


def _answer(folder: Path, name: str, expected: dict, modules: dict[Path, ModuleType]) -> dict[str, Any]:
    """What is known of a case."""
    file, _, function = name.partition(":")
    return {
        "why": expected.get("why") or "",
        "want": expected["want"],
        "parts": expected.get("parts") or parts_of(expected["want"]),
        "mate": _named(expected.get("mend")) or _mate(function, folder / file, modules),
    }


def _named(mend: str | None) -> str | None:
    """The case of a mend, which a second set may name by a path to the first."""
    return mend and mend.rpartition("/")[2]


def _mate(function: str, file: Path, modules: dict[Path, ModuleType]) -> str | None:
    """The sound case of the same name, by the habit of these files."""
    kind, _, rest = function.partition("_")
    names = [f"{sound}_{rest}" for sound in ("ok", "c", "h")] if kind in ("f", "p") else []
    return next((f"{file.name}:{n}" for n in names if hasattr(load(file, modules), n)), None)


def write(page: Path, name: str, lines: list[str]) -> None:
    """Put lines between the marks of this name on a page."""
    text, begin, end = page.read_text(encoding="utf-8"), f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise click.UsageError(f"{page} has no {begin} and {end}")
    page.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "path", required=True, type=_FILE)
@click.option("--only", default="", help="Cases whose name holds one of these, parted by commas.")
@click.option("--without", default="", help="Cases to leave out, alike.")
@click.option("--alone", is_flag=True, help="Let the ladder only look at the data.")
@click.option("--most", type=int, help="CPU seconds after which no other case is begun.")
@click.option("--quick", multiple=True, type=_FILE, help="Outcomes of public_bugs.py, to be told together.")
@click.option("--docs", type=_FILE, help="Write figures and table here.")
@click.option("--mark", default="judged", show_default=True, help="Between which marks of that page.")
def main(folder, path, only, without, alone, most, quick, docs, mark):
    """Judge the cases of FOLDER that PATH does not have yet."""
    known = json.loads(path.read_text()) if path.is_file() else []
    results = {one["case"]: Judged(**one) for one in known}
    sys.path[:0] = [str(folder), str(folder.parent)]  # a second set builds on what the first is made of
    modules: dict[Path, ModuleType] = {}
    for name, given in json.loads((folder / "expected.json").read_text()).items():
        wanted = any(word in name for word in only.split(","))
        if name in results:  # held against what is expected now
            results[name] = replace(results[name], **_answer(folder, name, given, modules))
        left_out = any(word and word in name for word in without.split(","))
        if not wanted or left_out or name in results or (most is not None and time.process_time() > most):
            continue
        found = results[name] = judge(folder, name, given, modules, alone)
        path.write_text(json.dumps([asdict(one) for one in results.values()], indent=1) + "\n")
        said = "; ".join(short(*one) for one in found.exchanged) or "nothing"
        click.echo(f"{name}: {said}; {found.losses}, {found.climb:.0f} + {found.exchange:.0f} CPU s")
    told = [in_words(list(results.values()))]
    if quick:
        outcomes = [one for file in quick for one in json.loads(file.read_text())]
        told += ["", together(list(results.values()), outcomes)]
    click.echo("\n".join(told))
    if docs:
        write(docs, mark, [*told, "", *table(list(results.values()))])


if __name__ == "__main__":
    main()
