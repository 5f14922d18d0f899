"""`debug --deep` on cases with known answers, one at a time, and the table of docs/deep.md.

    python benchmarks/deep.py benchmarks/reported --json deep.json
    python benchmarks/deep.py benchmarks/reported --json deep.json --docs docs/deep.md --mark reported --most 0

The folder is one of `benchmarks/public_bugs.py`. Results are written after each case, and a case that has one is not
run again, so that a long run can be broken off and gone on with; those of several folders may go into one file.
With ``--alone`` the ladder only looks at the data first, so that what is found is found by the exchange.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import click
from public_bugs import load

_FILE = click.Path(dir_okay=False, path_type=Path)
_HURTS = 0.03  # more loss than a mended mate, from which a fault counts as one that hurts training
_MEASURED = re.compile(r"val ([0-9.]+), mended ([0-9.]+)")


@dataclass(frozen=True)
class Judged:
    """What `--deep` said of a case.

    Attributes:
        case: file and function.
        why: what is wrong with it, or odd.
        want: codes that name it; none for a sound setup.
        parts: of the setup, in which a cause of these codes lies.
        mate: the sound case that differs from it in the mistake alone, where there is one.
        alone: whether the ladder only looked at the data.
        errors, warnings: (code, part, message), most likely cause first.
        exchanged: the same of what the exchange found, folded or not, with severity for code.
        losses: held out, by training.
        climb, exchange: CPU seconds.
    """

    case: str
    why: str
    want: list[str]
    parts: list[str]
    mate: str | None
    alone: bool
    errors: list[list[str]]
    warnings: list[list[str]]
    exchanged: list[list[str]]
    losses: dict[str, float]
    climb: float
    exchange: float

    @property
    def as_it_is(self) -> float:
        return self.losses.get("as it is", float("inf"))

    @property
    def part_right(self) -> bool:
        return any(severity == "error" and part in self.parts for severity, part, _ in self.exchanged)


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
        why=expected.get("why") or "",
        want=expected["want"],
        parts=sorted({cause_of(code).part for code in expected["want"] if _known(code)}),
        mate=_named(expected.get("mend")) or _mate(function, folder / file, modules),
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


def _known(code: str) -> bool:
    from mlxstories.findings import CATALOGUE

    return code in CATALOGUE


def _named(mend: str | None) -> str | None:
    """The case of a mend, which a second set may name by a path to the first."""
    return mend and mend.rpartition("/")[2]


def _mate(function: str, file: Path, modules: dict[Path, ModuleType]) -> str | None:
    """The sound case of the same name, by the habit of these files."""
    kind, _, rest = function.partition("_")
    names = [f"{sound}_{rest}" for sound in ("ok", "c", "h")] if kind in ("f", "p") else []
    return next((f"{file.name}:{n}" for n in names if hasattr(load(file, modules), n)), None)


def hurts(fault: Judged, by_case: dict[str, Judged]) -> float | None:
    """How much more loss a fault leaves than its mate, or less, as a share; None where neither the mate was judged nor
    the harm was measured before, as it has to be where a fault's own validation rows are at fault."""
    mate, measured = by_case.get(fault.mate or ""), _MEASURED.search(fault.why)
    apart = [abs(fault.as_it_is / mate.as_it_is - 1)] if mate is not None else []
    apart += [float(measured[1]) / float(measured[2]) - 1] if measured else []
    return max(apart, default=None)


def verdict(result: Judged) -> str:
    """What the exchange makes of a fault: the best that it says."""
    for severity in ("error", "warning"):
        told = [part in result.parts for one, part, _ in result.exchanged if one == severity]
        if told:
            return severity if any(told) else "another part"
    return "nothing"


def in_words(results: list[Judged]) -> str:
    by_case = {r.case: r for r in results}
    sound, faults = [r for r in results if not r.want], [r for r in results if r.want]
    harm = {r.case: hurts(r, by_case) for r in faults}
    hurting = [r for r in faults if (harm[r.case] or 0) >= _HURTS]
    seconds = sorted(r.exchange for r in results)
    lines = [
        f"{len(sound)} sound setups: {sum(bool(r.errors) for r in sound)} accused, "
        f"{sum(bool(r.warnings) for r in sound)} with a warning.",
        f"{len(faults)} faults: {_counts(faults)}.",
    ]
    if hurting:
        lines.append(
            f"{len(hurting)} of them are {_HURTS:.0%} or more away from the loss of a mended mate: "
            f"{_counts(hurting)}."
        )
    lines.append(
        f"CPU seconds of an exchange: median {statistics.median(seconds):.0f}, at most {seconds[-1]:.0f}."
    )
    return " ".join(lines)


def _counts(faults: list[Judged]) -> str:
    told = Counter(verdict(r) for r in faults)
    return (
        f"for {told['error']} the exchange alone accuses the right part, for {told['warning']} it warns of it, "
        f"for {told['another part']} it tells of another part, for {told['nothing']} of nothing"
    )


def together(results: list[Judged], quick: list[dict]) -> str:
    """What the quick ladder and the exchange tell of faults, given the outcomes of `benchmarks/public_bugs.py`."""
    by_case, told = {r.case: r for r in results}, Counter()
    for one in (q for q in quick if q["want"]):
        codes = one["errors"][:1] + (one["warnings"] if one["warned"] else [])
        exchanged = by_case.get(one["case"])
        if {*codes} & {*one["want"]}:
            told["code"] += 1
        elif exchanged is not None and verdict(exchanged) in ("error", "warning"):
            told[verdict(exchanged)] += 1
        else:
            told["neither"] += 1
    return (
        f"Of {sum(told.values())} faults the ladder names {told['code']} by their code; of the others the exchange "
        f"accuses the right part of {told['error']} and warns of that of {told['warning']}; {told['neither']} are left."
    )


def table(results: list[Judged], first: dict[str, Judged]) -> list[str]:
    """The faults, misses included, with what an earlier run said ``first``, and the sound setups of which anything was
    said."""
    by_case = {r.case: r for r in results}
    head = ["fault", "as it is", "mended", "all plain", "part"]
    lines = _lines([*head, *(["at first"] if first else []), "the exchange alone says"])
    for fault in (r for r in results if r.want):
        mate = by_case.get(fault.mate or "")
        lines += _lines(
            [
                fault.why.split(";")[0],
                _loss(fault, "as it is"),
                _loss(mate, "as it is") if mate else "",
                _loss(fault, "all plain"),
                ", ".join(fault.parts),
                *([_said(first.get(fault.case, fault))] if first else []),
                _said(fault),
            ],
            head=False,
        )
    told = [r for r in results if not r.want and (r.errors or r.warnings)]
    if not told:
        return [*lines, "", "Of no sound setup was anything said."]
    lines += [
        "",
        "Sound setups of which something was said:",
        "",
        *_lines(["sound", "as it is", "all plain", "says"]),
    ]
    for sound in told:
        said = [("error", *rest) for _, *rest in sound.errors] + [
            ("warning", *rest) for _, *rest in sound.warnings
        ]
        losses = [_loss(sound, "as it is"), _loss(sound, "all plain")]
        words = "; ".join(_short(*one) for one in said)
        lines += _lines([sound.case.rpartition(":")[2], *losses, words], head=False)
    return lines


def _lines(cells: list[str], *, head: bool = True) -> list[str]:
    line = "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
    return [line, "| --- " * len(cells) + "|"] if head else [line]


def _said(fault: Judged) -> str:
    words = "; ".join(_short(*one) for one in fault.exchanged) or "nothing"
    return words if fault.part_right else f"**{words}**"


def _short(severity: str, part: str, message: str) -> str:
    change, proved, losses = message.partition(" the held-out loss is ")
    return f"{severity}, {part}" + (f": {losses.split()[0]} {change}" if proved else "")


def _loss(result: Judged, name: str) -> str:
    loss = result.losses.get(name)
    return "" if loss is None else f"{loss:.3f}"


def write(page: Path, name: str, lines: list[str]) -> None:
    """Put lines between the marks of this name on a page."""
    text, begin, end = page.read_text(encoding="utf-8"), f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise click.UsageError(f"{page} has no {begin} and {end}")
    page.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


def read(path: Path | None) -> dict[str, Judged]:
    known = json.loads(path.read_text()) if path is not None and path.is_file() else []
    return {one["case"]: Judged(**one) for one in known}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "path", required=True, type=_FILE)
@click.option("--only", default="", help="Cases whose name holds one of these, parted by commas.")
@click.option("--without", default="", help="Cases to leave out, alike.")
@click.option("--alone", is_flag=True, help="Let the ladder only look at the data.")
@click.option("--most", type=int, help="CPU seconds after which no other case is begun.")
@click.option("--first", type=_FILE, help="Results of an earlier run, to stand beside.")
@click.option("--quick", multiple=True, type=_FILE, help="Outcomes of public_bugs.py, to be told together.")
@click.option("--docs", type=_FILE, help="Write figures and table here.")
@click.option("--mark", default="judged", show_default=True, help="Between which marks of that page.")
def main(folder, path, only, without, alone, most, first, quick, docs, mark):
    """Judge the cases of FOLDER that PATH does not have yet."""
    results = read(path)
    sys.path[:0] = [str(folder), str(folder.parent)]  # a second set builds on what the first is made of
    modules: dict[Path, ModuleType] = {}
    for name, given in json.loads((folder / "expected.json").read_text()).items():
        wanted = any(word in name for word in only.split(","))
        left_out = any(word and word in name for word in without.split(","))
        if not wanted or left_out or name in results or (most is not None and time.process_time() > most):
            continue
        found = results[name] = judge(folder, name, given, modules, alone)
        path.write_text(json.dumps([asdict(one) for one in results.values()], indent=1) + "\n")
        said = "; ".join(_short(*one) for one in found.exchanged) or "nothing"
        click.echo(f"{name}: {said}; {found.losses}, {found.climb:.0f} + {found.exchange:.0f} CPU s")
    told = [in_words(list(results.values()))]
    if quick:
        told += [
            "",
            together(list(results.values()), [one for file in quick for one in json.loads(file.read_text())]),
        ]
    click.echo("\n".join(told))
    if docs:
        write(docs, mark, [*told, "", *table(list(results.values()), read(first))])


if __name__ == "__main__":
    main()
