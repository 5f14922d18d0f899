"""Every planted fault, its healthy twins and every healthy subject through the ladder: recall, precision, false
alarms, CPU seconds, and the margins of the ladder's limits.

    python benchmarks/faults.py --seeds 0,1,2 --jobs 2 --json faults.json --docs --margins

Recall is the share of faults whose expected code is the first error; precision the share of subjects with an
error whose first error is right, false alarms on healthy subjects counted.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

# Threads that wait for each other cost tenfold where processes share cores, and small matrices gain nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MARGINS = ROOT / "mlxstories" / "ladder" / "margins.json"


@dataclass(frozen=True)
class Result:
    """What the ladder said of a subject; ``expected`` is None for a healthy one.

    ``seconds`` are of the processor, which other work on the machine moves least; ``readings`` are (check, limit,
    lowest, highest) of what was held against the ladder's limits.
    """

    name: str
    group: str
    seed: int
    expected: str | None
    found: str | None
    others: list[str]
    message: str
    seconds: float
    readings: list[tuple[str, str, float, float]] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return self.found == self.expected


def examine(kind: str, name: str, seed: int) -> Result:
    """Diagnose one subject; an exception of the ladder counts as a finding of the name "crash"."""
    try:
        return diagnosed(kind, name, seed)
    except Exception as error:
        return Result(
            name,
            kind,
            seed,
            kind if kind == "fault" else None,
            "crash",
            [],
            f"{type(error).__name__}: {error}",
            0.0,
        )


def diagnosed(kind: str, name: str, seed: int) -> Result:
    from mlxstories.ladder import diagnose

    if kind == "fault":
        from mlxstories.faults import FAULTS
        from mlxstories.faults.recipe import built_in

        group, expected = FAULTS[name].group, FAULTS[name].code
        subject = built_in(seed=seed, fault=name)
    elif kind == "twin":
        from mlxstories.faults.recipe import healthy
        from mlxstories.faults.twins import TWINS

        group, expected, subject = "twins", None, TWINS[name].plant(healthy(seed)).subject(name)
    else:
        from healthy import HEALTHY

        group, expected, subject = "healthy", None, HEALTHY[name](seed)
    began = time.process_time()
    diagnosis = diagnose(subject, seed=seed)
    seconds = time.process_time() - began
    errors = [finding for finding in diagnosis.findings if finding.severity == "error"]
    if not errors and kind == "fault" and FAULTS[name].severity == "warning":
        errors = [finding for finding in diagnosis.findings if finding.code == expected]
    first = errors[0] if errors else None
    return Result(
        name=name,
        group=group,
        seed=seed,
        expected=expected,
        found=first and first.code,
        others=[
            f"{finding.severity}: {finding.code}" for finding in diagnosis.findings if finding is not first
        ],
        message=first.message if first else "",
        seconds=seconds,
        readings=[
            (check, limit, min(gauge.readings), max(gauge.readings))
            for (check, limit), gauge in diagnosis.gauges.items()
        ],
    )


def tasks(seeds: list[int], only: tuple[str, ...], which: str) -> list[tuple[str, str, int]]:
    from healthy import HEALTHY

    from mlxstories.faults import FAULTS
    from mlxstories.faults.twins import TWINS

    kinds = {"fault": FAULTS, "twin": TWINS, "healthy": HEALTHY}
    chosen = [
        (kind, name, seed)
        for seed in seeds
        for kind, names in kinds.items()
        for name in names
        if which in ("all", kind) and (not only or name in only)
    ]
    if not chosen:
        raise click.UsageError(f"no subject is called {' or '.join(only)}")
    return chosen


def run(chosen: list[tuple[str, str, int]], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from (examine(*task) for task in chosen)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for future in as_completed([pool.submit(examine, *task) for task in chosen]):
            yield future.result()


def summary(results: list[Result]) -> dict[str, float | int | None]:
    """Recall, precision and the rest over all results."""
    faults = [result for result in results if result.expected]
    healthy = [result for result in results if not result.expected]
    accused = [result for result in results if result.found]
    seconds = [result.seconds for result in results]
    hits = sum(result.right for result in faults)
    return {
        "faults": len({result.name for result in faults}),
        "healthy": len({result.name for result in healthy}),
        "seeds": len({result.seed for result in results}),
        "recall": hits / len(faults) if faults else None,
        "precision": hits / len(accused) if accused and faults else None,
        "false_alarms": sum(bool(result.found) for result in healthy),
        "median_seconds": statistics.median(seconds),
        "max_seconds": max(seconds),
    }


def margins(results: list[Result]) -> dict[str, dict[str, dict]]:
    """By check and limit: its value, and the lowest and the highest reading over healthy subjects, and over faulty
    ones that the check can name; what is not finite is left out."""
    from mlxstories.ladder.registry import CHECKS

    read: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for check, limit, *ends in result.readings:
            if result.expected is None or result.expected in CHECKS[check].causes:
                side = "faulty" if result.expected else "healthy"
                read.setdefault((check, limit, side), []).extend(filter(math.isfinite, ends))
    found: dict[str, dict[str, dict]] = {}
    for name, check in CHECKS.items():
        for limit, given in check.limits.items():
            sides = {side: read.get((name, limit, side)) for side in ("healthy", "faulty")}
            ends = {
                side: [float(f"{end(all_):.3g}") for end in (min, max)]
                for side, all_ in sides.items()
                if all_
            }
            if ends:
                found.setdefault(name, {})[limit] = {"limit": given.value, "unit": given.unit, **ends}
    return found


def in_words(totals: dict) -> str:
    def share(value):
        return "–" if value is None else f"{value:.1%}"

    return (
        f"{totals['faults']} faults and {totals['healthy']} healthy subjects over {totals['seeds']} seed(s): "
        f"recall {share(totals['recall'])}, precision {share(totals['precision'])}, "
        f"{totals['false_alarms']} false alarms, median {totals['median_seconds']:.1f} CPU s, "
        f"at most {totals['max_seconds']:.1f} a subject."
    )


def table(results: list[Result]) -> str:
    """The table of docs/faults.md, one row for each fault."""
    from mlxstories.faults import FAULTS

    lines = [
        in_words(summary(results)),
        "",
        "| fault | what was done | cause named | found |",
        "| --- | --- | --- | --- |",
    ]
    for name, fault in FAULTS.items():
        mine = [result for result in results if result.name == name and result.expected]
        if mine:
            wrong = sorted({result.found or "nothing" for result in mine if not result.right})
            found = f"{sum(result.right for result in mine)} of {len(mine)}"
            verdict = found + (f" (else {', '.join(wrong)})" if wrong else "")
            lines.append(f"| `{name}` | {fault.description} | `{fault.code}` | {verdict} |")
    twins = [result for result in results if result.group == "twins"]
    healthy = [result for result in results if result.group == "healthy"]
    names = ", ".join(dict.fromkeys(f"`{result.name}`" for result in healthy))
    passed = f"Healthy twins of the faults, {sum(result.right for result in twins)} of {len(twins)} passed."
    return "\n".join(
        [
            *lines,
            *(["", passed] if twins else []),
            "",
            f"Healthy subjects, {sum(result.right for result in healthy)} of {len(healthy)} passed: {names}.",
        ]
    )


def write_between(name: str, text: str) -> None:
    """Put ``text`` between the markers of docs/``name``.md."""
    page = DOCS / f"{name}.md"
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = page.read_text(encoding="utf-8")
    if begin not in content or end not in content:
        raise click.ClickException(f"{page.name} lacks the markers {begin} and {end}")
    before, after = content.split(begin)[0], content.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


@click.command()
@click.option("--seeds", default="0", help="Seeds, separated by commas.")
@click.option("--only", multiple=True, help="A subject's name; may be repeated.")
@click.option("--which", type=click.Choice(["all", "fault", "twin", "healthy"]), default="all")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Processes.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all results here."
)
@click.option("--docs", is_flag=True, help="Write the table into docs/faults.md.")
@click.option(
    "--margins", "write_margins", is_flag=True, help=f"Write the limits' margins into {MARGINS.name}."
)
@click.option(
    "--read",
    "written",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the results of this --json file and examine nothing; may be repeated.",
)
def main(seeds, only, which, jobs, path, docs, write_margins, written):
    """Examine planted faults, their healthy twins and healthy subjects."""
    results = [Result(**record) for file in written for record in json.loads(file.read_text())["results"]]
    chosen = [] if written else tasks([int(seed) for seed in seeds.split(",")], only, which)
    for result in run(chosen, jobs):
        results.append(result)
        mark = "ok  " if result.right else "MISS" if result.expected else "FALSE ALARM"
        found = result.found or "nothing"
        expected = f" (expected {result.expected})" if result.expected and not result.right else ""
        said = "" if result.right else f"; {result.message} {result.others}"
        click.echo(
            f"{mark} {result.name} [{result.seed}]: {found}{expected}, {result.seconds:.1f} CPU s{said}"
        )
    totals = summary(results)
    click.echo(in_words(totals))
    if path:
        path.write_text(
            json.dumps({"summary": totals, "results": [asdict(r) for r in results]}, indent=1) + "\n"
        )
    if write_margins:
        MARGINS.write_text(json.dumps(margins(results), indent=1) + "\n", encoding="utf-8")
    if docs:
        order = {name: index for index, name in enumerate(dict.fromkeys(r.name for r in results))}
        write_between("faults", table(sorted(results, key=lambda r: (order[r.name], r.seed))))


if __name__ == "__main__":
    main()
