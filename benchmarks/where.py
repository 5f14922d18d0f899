"""Whether findings about the model name the module or the line that is wrong, for planted faults and written cases.

    python benchmarks/where.py --json where.json
    python benchmarks/where.py --cases benchmarks/reported        # a folder of setups with an expected.json

Only the rung `init` is climbed, and `minimal` where that finds nothing. Of a planted fault the place is known by
comparing its model with the healthy one: the modules of another class, with other settings or other first values, and
the lines of the planted code. Of a written case it is the code that no other case uses: its function, and the classes
and functions that are named by it alone. A finding is right if its module is one of these or inside of one, or its line
among those lines; only faults whose finding is about the model are asked, and only those that are named at all are
counted.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices gain nothing from threads

FAULTS_ROOM = Path(__file__).parent.parent / "mlxstories" / "faults"
_SECONDARY = ("note",)


@dataclass(frozen=True)
class Row:
    """One fault: what was said of it, and whether that is in the right place; None where it was not named."""

    name: str
    found: str | None
    where: str
    right: bool | None


def planted(only: str) -> Iterator[Row]:
    """Faults of the built-in recipe whose code is about the model."""
    from mlxstories.faults import FAULTS
    from mlxstories.faults.recipe import built_in
    from mlxstories.findings.causes import cause_of

    for name, fault in FAULTS.items():
        if only in name and cause_of(fault.code).part == "model":
            subject = built_in(seed=0, fault=name)
            finding = _first(subject, {fault.code})
            places = changed(built_in(seed=0).model(), subject.model())
            yield _row(name, finding, lambda where, places=places: _in_planted(where, places))


def changed(healthy, faulty) -> set[str]:
    """Paths of modules and parameters in which two models of one seed differ; "" for the model itself."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    before, after = dict(healthy.named_modules()), dict(faulty.named_modules())
    paths = {path for path, module in after.items() if _unlike(before.get(path), module)}
    weights = dict(tree_flatten(healthy.parameters()))
    for name, array in tree_flatten(faulty.parameters()):
        old = weights.get(name)
        if old is None or old.shape != array.shape or not mx.array_equal(old, array):
            paths |= {name, name.rpartition(".")[0]} - {""}
    return paths


def _unlike(one, other) -> bool:
    if type(one) is not type(other):
        return True
    plain = (bool, int, float, str, tuple)
    settings = [{k: v for k, v in vars(module).items() if isinstance(v, plain)} for module in (one, other)]
    return settings[0] != settings[1]


def _in_planted(where: dict, places: set[str]) -> bool:
    if FAULTS_ROOM in Path(str(where.get("file", "."))).parents:
        return True
    module = str(where.get("module") or "")
    return any(path and (module == path or module.startswith(path + ".")) for path in places)


def written(folder: Path, only: str) -> Iterator[Row]:
    """Cases of a folder whose finding is about the model."""
    from mlxstories.findings.causes import CAUSES, cause_of
    from mlxstories.ladder import load_subject

    known = {code if isinstance(code, str) else code.code for code in CAUSES}
    sys.path.insert(0, str(folder))
    for name, case in json.loads((folder / "expected.json").read_text()).items():
        codes = {code for code in case["want"] if code in known}
        of_model = {code for code in codes if cause_of(code).part == "model"}
        if only not in name or not of_model or of_model != codes:
            continue
        file, function = name.split(":")
        finding = _first(load_subject(str(folder / file) + ":" + function), codes)
        lines = own_lines(folder / file, function)
        yield _row(name, finding, lambda where, lines=lines: _in_lines(where, lines))


def own_lines(file: Path, function: str) -> dict[str, set[int]]:
    """By file name the lines of a case's function, and of what is named by it alone."""
    tree = ast.parse(file.read_text())
    defined = {n.name: n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    names = {
        name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} for name, node in defined.items()
    }
    own = {function}
    while more := {
        name
        for name in defined
        if name not in own
        and (users := {u for u in names if name in names[u] and u != name})
        and users <= own
    }:
        own |= more
    spans = (range(defined[n].lineno, (defined[n].end_lineno or 0) + 1) for n in own)
    return {file.name: {line for span in spans for line in span}}


def _in_lines(where: dict, lines: dict[str, set[int]]) -> bool:
    return int(where.get("line") or -1) in lines.get(Path(str(where.get("file", ""))).name, set())


def _first(subject, codes: set[str]):
    """The first finding of one of these codes, on the rung init or on minimal."""
    from mlxstories.ladder import diagnose

    for rung in ("init", "minimal"):
        for finding in diagnose(subject, rungs=[rung]).findings:
            if finding.code in codes and finding.severity not in _SECONDARY:
                return finding
    return None


def _row(name: str, finding, right) -> Row:
    if finding is None:
        return Row(name, None, "", None)
    where = finding.where if isinstance(finding.where, dict) else {"module": finding.where}
    text = f"{Path(str(where.get('file', ''))).name}:{where.get('line', '')} ({where.get('module', '')})"
    return Row(name, finding.code, text, right(where))


@click.command()
@click.option("--cases", type=click.Path(exists=True, path_type=Path), help="A folder of cases instead.")
@click.option("--only", default="", help="Names that hold this text alone.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the rows here.")
def main(cases: Path | None, only: str, report: Path | None) -> None:
    """Measure how often the place is right."""
    rows = []
    for row in written(cases.resolve(), only) if cases else planted(only):
        rows.append(row)
        mark = {True: "right", False: "WRONG", None: "not named"}[row.right]
        print(f"{mark:9s} {row.name:44s} {row.found or '':24s} {row.where}", flush=True)
        if report:
            report.write_text(json.dumps([asdict(r) for r in rows], indent=1))
    named = [row for row in rows if row.right is not None]
    right = sum(bool(row.right) for row in named)
    print(f"right {right} of {len(named)} named, of {len(rows)} faults")


if __name__ == "__main__":
    main()
