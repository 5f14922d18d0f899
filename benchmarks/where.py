"""Whether findings about the model name the module or the line that is wrong, for planted faults and written cases.

    python benchmarks/where.py --json where.json
    python benchmarks/where.py --cases benchmarks/reported        # a folder of setups with an expected.json

Only the rung `init` is climbed, and `minimal` where that finds nothing. Of a planted fault the place is known by
comparing its model with the healthy one: the modules of another class, with other settings or other first values, and
the lines of the planted code. Of a written case it is the code that it shares with its sound mates at most: its
function, and the classes and functions that no other case reaches. A finding is right if its module is one of these or
inside of one, or its line among those lines; only faults whose finding is about the model are asked, and only those
that are named at all are counted.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices gain nothing from threads

FAULTS_ROOM = Path(__file__).parent.parent / "mlxstories" / "faults"
_PREFIX = re.compile(r"^(f|p|c|ok|h)_")
# the modules in which what a method of the model returns takes effect
USED_IN = {"attention_mask": ".attention"}
# that no comparison shows
PARTS = {"block-never-called": "blocks.1", "blocks-in-private-attribute": "_layers"}


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
            places = changed(built_in(seed=0).model(), subject.model()) | {PARTS.get(name, "")}
            yield _row(name, finding, lambda where, places=places: _in_planted(where, places))


def changed(healthy, faulty) -> set[str]:
    """Paths of modules and parameters in which two models differ, but for what was drawn; "" for the model itself."""
    from mlx.utils import tree_flatten

    before, after = dict(healthy.named_modules()), dict(faulty.named_modules())
    classes = {path for path, module in after.items() if _unlike(before.get(path), module)}
    paths = set(classes)
    weights, trained = (
        dict(tree_flatten(get())) for get in (healthy.parameters, faulty.trainable_parameters)
    )
    for name, array in tree_flatten(faulty.parameters()):
        known = weights.get(name)
        drawn_anew = not classes and known is not None and _other_values(known, array)
        if known is None or name not in trained or drawn_anew:
            paths |= {name, name.rpartition(".")[0]} - {""}
    for method, users in USED_IN.items():
        if "" in classes and method in vars(type(faulty)):
            paths |= {path for path in after if path.endswith(users)}
    return paths


def _other_values(one, other) -> bool:
    """Whether arrays are of other shapes, or drawn from other distributions."""
    import mlx.core as mx

    if one.shape != other.shape or one.dtype != other.dtype:
        return True
    spreads = [float(mx.std(array.astype(mx.float32))) for array in (one, other)]
    return abs(spreads[0] - spreads[1]) > 0.5 * max(spreads)


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
        if only not in name or not of_model:
            continue
        file, function = name.split(":")
        finding = _first(load_subject(str(folder / file) + ":" + function), of_model)
        lines = own_lines(folder / file, function)
        yield _row(name, finding, lambda where, lines=lines: _in_lines(where, lines))


def own_lines(file: Path, function: str) -> dict[str, set[int]]:
    """By file name the lines of what a case and its sound mates alone are made of: cases of one name, but for the
    first letters."""
    tree = ast.parse(file.read_text())
    defined = {n.name: n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    names = {
        name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & set(defined)
        for name, node in defined.items()
    }
    kin: dict[str, set[str]] = {name: set() for name in defined}
    for case in (name for name in defined if _PREFIX.match(name)):
        waiting, reached = [case], {case}
        while waiting:
            more = names[waiting.pop()] - reached
            reached |= more
            waiting += more
        for name in reached:
            kin[name].add(_PREFIX.sub("", case))
    own = [name for name, cases in kin.items() if cases == {_PREFIX.sub("", function)}]
    spans = (range(defined[name].lineno, (defined[name].end_lineno or 0) + 1) for name in own)
    return {file.name: {line for span in spans for line in span}}


def _in_lines(where: dict, lines: dict[str, set[int]]) -> bool:
    return int(where.get("line") or -1) in lines.get(Path(str(where.get("file", ""))).name, set())


def _first(subject, codes: set[str]):
    """The first finding of one of these codes, on the rung init or on minimal."""
    from mlxstories.ladder import diagnose

    for rung in ("init", "minimal"):
        for finding in diagnose(subject, rungs=[rung]).findings:
            if finding.code in codes and finding.severity != "note":
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
