"""`debug --deep` on cases with known answers, one at a time, and the table of docs/deep.md.

    python benchmarks/deep.py benchmarks/reported --json deep.json
    python benchmarks/deep.py benchmarks/reported --json deep.json --docs docs/deep.md --most 0

The folder is one of `benchmarks/public_bugs.py`. Results are written after each case, and a case that has one is not
run again, so that a long run can be broken off and gone on with; those of several folders may go into one file.
With ``--alone`` the ladder only looks at the data first, so that what is found is found by the exchange.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import click
from public_bugs import load

_BETWEEN = ("<!-- judged -->", "<!-- /judged -->")
_HURTS = 0.03  # more loss than a mended mate, from which a fault counts as one that hurts training


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
        mate=expected.get("mate") or _mate(function, folder / file, modules),
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


def _mate(function: str, file: Path, modules: dict[Path, ModuleType]) -> str | None:
    """The sound case of the same name, by the habit of these files."""
    kind, _, rest = function.partition("_")
    names = [f"{sound}_{rest}" for sound in ("ok", "c", "h")] if kind in ("f", "p") else []
    return next((f"{file.name}:{n}" for n in names if hasattr(load(file, modules), n)), None)


def hurts(fault: Judged, by_case: dict[str, Judged]) -> float | None:
    """How much more loss a fault leaves than its mate, as a share; None where the mate was not judged."""
    mate = by_case.get(fault.mate or "")
    return abs(fault.as_it_is / mate.as_it_is - 1) if mate is not None else None


def in_words(results: list[Judged]) -> str:
    by_case = {r.case: r for r in results}
    sound, faults = [r for r in results if not r.want], [r for r in results if r.want]
    accused = [r for r in sound if r.errors]
    seconds = sorted(r.exchange for r in results)
    lines = [
        f"{len(sound)} sound setups: {len(accused)} accused, {sum(bool(r.warnings) for r in sound)} with a warning.",
        f"{len(faults)} faults: for {sum(r.part_right for r in faults)} the exchange alone accuses the right part, "
        f"for {sum(_wrong(r) for r in faults)} another one.",
    ]
    harm = [(r, h) for r in faults if (h := hurts(r, by_case)) is not None]
    hurting = [r for r, h in harm if h >= _HURTS]
    if harm:
        lines.append(
            f"{len(harm)} faults were trained beside a mended mate: {len(hurting)} are {_HURTS:.0%} or more away from "
            f"it after the same updates, and for {sum(r.part_right for r in hurting)} of these the part is right."
        )
    lines.append(
        f"CPU seconds of an exchange: median {statistics.median(seconds):.0f}, at most {seconds[-1]:.0f}."
    )
    return " ".join(lines)


def _wrong(fault: Judged) -> bool:
    accused = {part for severity, part, _ in fault.exchanged if severity == "error"}
    return bool(accused) and not accused & set(fault.parts)


def table(results: list[Judged]) -> list[str]:
    """The faults, misses included, and the sound setups of which anything was said."""
    by_case = {r.case: r for r in results}
    lines = ["| fault | as it is | mended | all plain | part | the exchange alone says |", "| --- " * 6 + "|"]
    for fault in (r for r in results if r.want):
        mate = by_case.get(fault.mate or "")
        verdict = "; ".join(_short(*one) for one in fault.exchanged) or "nothing"
        cells = [
            fault.why.split(";")[0],
            _loss(fault, "as it is"),
            _loss(mate, "as it is") if mate else "",
            _loss(fault, "all plain"),
            ", ".join(fault.parts),
            verdict if fault.part_right else f"**{verdict}**",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    told = [r for r in results if not r.want and (r.errors or r.warnings)]
    lines += [
        "",
        "Sound setups of which something was said:" if told else "Of no sound setup was anything said.",
    ]
    if told:
        lines += ["", "| sound | as it is | all plain | says |", "| --- " * 4 + "|"]
    for sound in told:
        said = [("error", *rest) for _, *rest in sound.errors] + [
            ("warning", *rest) for _, *rest in sound.warnings
        ]
        cells = [
            sound.case.rpartition(":")[2],
            _loss(sound, "as it is"),
            _loss(sound, "all plain"),
            "; ".join(_short(*one) for one in said),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return lines


def _short(severity: str, part: str, message: str) -> str:
    change, proved, losses = message.partition(" the held-out loss is ")
    return f"{severity}, {part}" + (f": {losses.split()[0]} {change}" if proved else "")


def _loss(result: Judged, name: str) -> str:
    loss = result.losses.get(name)
    return "" if loss is None else f"{loss:.3f}"


def write(page: Path, results: list[Judged]) -> None:
    """Put figures and table between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BETWEEN[0])
    _, mark, after = rest.partition(_BETWEEN[1])
    if not mark:
        raise click.UsageError(f"{page} has no {_BETWEEN[0]} and {_BETWEEN[1]}")
    body = "\n".join([_BETWEEN[0], in_words(results), "", *table(results), _BETWEEN[1]])
    page.write_text(before + body + after, encoding="utf-8")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "path", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--only", default="", help="Cases whose name holds one of these, parted by commas.")
@click.option("--without", default="", help="Cases to leave out, alike.")
@click.option("--alone", is_flag=True, help="Let the ladder only look at the data.")
@click.option("--most", type=int, help="CPU seconds after which no other case is begun.")
@click.option("--docs", type=click.Path(dir_okay=False, path_type=Path), help="Write figures and table here.")
def main(folder, path, only, without, alone, most, docs):
    """Judge the cases of FOLDER that PATH does not have yet."""
    known = json.loads(path.read_text()) if path.is_file() else []
    results = {one["case"]: Judged(**one) for one in known}
    sys.path.insert(0, str(folder))
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
    click.echo(in_words(list(results.values())))
    if docs:
        write(docs, list(results.values()))


if __name__ == "__main__":
    main()
