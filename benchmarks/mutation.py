"""Do the tests notice? Small mutations of the core, one at a time, and the tests of their room.

    python benchmarks/mutation.py --sample 40 --seed 1 --json mutation.json
    python benchmarks/mutation.py --again docs/mutation.md

Mutations are cosmic-ray's (``pip install cosmic-ray``): numbers, comparisons, arithmetic, truth values. They are made
in a copy of the tracked files. A mutation is killed when a test fails, or when the tests take ten times the CPU seconds
that they take without it; one that survives is listed with its line, and is either a gap in the tests or changes
nothing that can be seen. A list of survivors is also what ``--again`` reads: the same mutations, in the lines of today.
A check is tried by the tests that have its name or that of a measurement which it judges, by the faults that it names
and by their twins.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
_PARTS = ("data", "model", "loss", "step", "training", "evaluation", "generation")
_MEASURED = re.compile(r"from mlxstories\.ladder\.bench\.\w+\.(\w+) import")
ROOMS = {
    "optim": ("mlxstories/optim/*.py", "tests/optim"),
    "losses": ("mlxstories/training/losses.py", "tests/training/test_losses.py tests/training/test_evaluation.py"),
    "step": ("mlxstories/training/step.py", "tests/training/test_step.py tests/training/test_memory.py"),
    "evaluation": ("mlxstories/training/evaluation.py", "tests/training/test_evaluation.py"),
    "generation": ("mlxstories/generation/*.py", "tests/generation"),
    "data": ("data/*.py", "tests/data"),
    "statistics": ("mlxstories/comparison/statistics.py", "tests/comparison/test_statistics.py"),
    "findings": ("mlxstories/findings/*.py", "tests/findings tests/ladder/test_climb.py tests/ladder/evaluation"),
    "checks": ("mlxstories/ladder/checks/*/*.py", " ".join(f"tests/ladder/{part}" for part in _PARTS)),
}  # fmt: skip
FAULTS = "tests/ladder/test_faults.py tests/ladder/test_twins.py"
COMPARISONS = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq", "Lt_GtE")
ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "Mod_Mul", "FloorDiv_Mul")
OPERATORS = (
    "NumberReplacer",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "AddNot",
    *(f"ReplaceComparisonOperator_{pair}" for pair in COMPARISONS),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ARITHMETIC),
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
)
_PATIENCE = 10  # times the tests' own CPU seconds
_AT_LEAST = 60  # CPU seconds for the tests of a mutation
_HUNG = 1800  # seconds by the clock
_NO_TESTS = 5  # the exit code of pytest where ``-k`` chose none
_LISTED = re.compile(r"`(?P<path>\S+):(?P<line>\d+)`: `(?P<before>.+?)` became `(?P<after>.+?)`")


@dataclass(frozen=True)
class Mutation:
    """One mutation: a line of a file, without its indent, before and after."""

    room: str
    path: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"`{self.path}:{self.line}`: `{self.before}` became `{self.after}`"

    def of(self, source: str) -> str:
        """The source with this mutation."""
        lines = source.splitlines(keepends=True)
        lines[self.line - 1] = lines[self.line - 1].replace(self.before, self.after)
        return "".join(lines)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation: "killed" or "survived"."""

    mutation: Mutation
    verdict: str


@click.command()
@click.option("--sample", default=40, show_default=True, help="Mutations of each room.")
@click.option("--seed", default=0, show_default=True)
@click.option("--room", "rooms", multiple=True, type=click.Choice(list(ROOMS)), help="These rooms alone.")
@click.option("--own", is_flag=True, help="Only files with tests of their own name, tried by these alone.")
@click.option("--again", type=click.Path(exists=True, path_type=Path), help="The mutations that it lists.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the outcomes here.")
def main(sample, seed, rooms, own, again, path):
    """Mutate, test, count."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy(Path(folder))
        given = list(listed(again.read_text(encoding="utf-8"), copy)) if again else None
        for room in rooms or ROOMS:
            if given is None:
                mutations = drawn(copy, room, sample, seed, own)
            else:
                mutations = [mutation for mutation in given if mutation.room == room]
            if not mutations:
                continue
            seconds = 0.0 if own else _tested(copy, ROOMS[room][1].split(), None)[1]
            patience = max(_AT_LEAST, int(_PATIENCE * seconds))
            for mutation in mutations:
                trials = [_own(mutation.room, mutation.path)] if own else _trials(mutation)
                outcomes.append(Outcome(mutation, tried(copy, mutation, trials, patience)))
                if outcomes[-1].verdict == "survived":
                    print(f"- {mutation}", flush=True)
            print(_row(room, outcomes), flush=True)
            if path:
                report = {"seed": seed, "outcomes": [asdict(outcome) for outcome in outcomes]}
                path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    killed = sum(outcome.verdict == "killed" for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} killed ({killed / max(1, len(outcomes)):.1%})")


def _copy(folder: Path) -> Path:
    """The tracked files, in a folder where they may be broken."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
    return folder


def drawn(copy: Path, room: str, sample: int, seed: int, own: bool) -> list[Mutation]:
    """Some of all mutations of a room."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operators = {name: get_operator(f"core/{name}")() for name in OPERATORS}
    places = []
    for file in sorted(copy.glob(ROOMS[room][0])):
        path, source = str(file.relative_to(copy)), file.read_text(encoding="utf-8")
        if own and not _own(room, path):
            continue
        nodes = list(ast_nodes(get_ast(source)))
        for name, operator in operators.items():
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            places += [(path, source, name, occurrence) for occurrence in range(count)]
    mutations = []
    for path, source, name, occurrence in random.Random(seed).sample(places, min(sample, len(places))):
        was, now = source.splitlines(), mutate_code(source, operators[name], occurrence).splitlines()
        line = next(i for i, (a, b) in enumerate(zip(was, now, strict=True)) if a != b)
        mutations.append(Mutation(room, path, line + 1, was[line].strip(), now[line].strip()))
    return mutations


def listed(text: str, copy: Path) -> Iterator[Mutation]:
    """The mutations of a list, each in the line nearest to the named one that reads the same today."""
    for found in _LISTED.finditer(text):
        path, number, before, after = found.group("path", "line", "before", "after")
        room = next(room for room, (pattern, _) in ROOMS.items() if Path(path).match(pattern))
        lines = (copy / path).read_text(encoding="utf-8").splitlines() if (copy / path).is_file() else []
        alike = [i for i, line in enumerate(lines, 1) if line.strip() == before]
        if alike:
            yield Mutation(room, path, min(alike, key=lambda i: abs(i - int(number))), before, after)
        else:
            print(f"no longer there: `{path}`: `{before}`", flush=True)


def tried(copy: Path, mutation: Mutation, trials: list[list[str]], patience: int) -> str:
    """Make the mutation, run the tests, take it back."""
    file = copy / mutation.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutation.of(source), encoding="utf-8")
    try:
        return "survived" if all(_tested(copy, trial, patience)[0] for trial in trials) else "killed"
    finally:
        file.write_text(source, encoding="utf-8")


def _trials(mutation: Mutation) -> list[list[str]]:
    """Words to pytest, for one run after the other until one fails: the file's own tests go first."""
    room, own = ROOMS[mutation.room][1].split(), _own(mutation.room, mutation.path)
    if mutation.room != "checks":
        return [own, room] if own and own != room else [room]
    tests = [own or room]
    if names := _judged(mutation.path):
        tests.append([*FAULTS.split(), "-m", "", "-k", " or ".join(sorted(names))])
    return tests


def _own(room: str, path: str) -> list[str]:
    """The file of tests that has the name of the mutated one, if there is one; of a check, those of what it judges
    too."""
    if room == "checks":
        names = {Path(path).stem, *_MEASURED.findall((ROOT / path).read_text(encoding="utf-8"))}
        files = (ROOT / f"tests/ladder/{part}/test_{name}.py" for part in _PARTS for name in sorted(names))
        return [str(file.relative_to(ROOT)) for file in files if file.is_file()]
    folder = Path(ROOMS[room][1].split()[0])
    own = (folder if folder.suffix == "" else folder.parent) / f"test_{Path(path).name}"
    return [str(own)] if (ROOT / own).is_file() else []


def _judged(path: str) -> set[str]:
    """The causes that the checks of a file name, and the faults of them."""
    from mlxstories.faults import FAULTS as faults
    from mlxstories.ladder.registry import CHECKS

    module = path.removesuffix(".py").replace("/", ".")
    checks = [check for check in CHECKS.values() if check.ask.__module__ == module]
    causes = {cause for check in checks for cause in check.causes}
    return causes | {name for name, fault in faults.items() if fault.code in causes}


def _tested(copy: Path, tests: list[str], patience: int | None) -> tuple[bool, float]:
    """Whether the tests passed, within ``patience`` CPU seconds, and the CPU seconds that they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    if patience is not None:
        command = ["/bin/sh", "-c", f'ulimit -t {patience}; exec "$@"', "sh", *command]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            timeout=_HUNG,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        return False, float("inf")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, _NO_TESTS) and patience is None:
        raise SystemExit(f"{tests} fail without any mutation:\n{done.stdout.decode()[-2000:]}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode in (0, _NO_TESTS), seconds


def _row(room: str, outcomes: list[Outcome]) -> str:
    verdicts = Counter(outcome.verdict for outcome in outcomes if outcome.mutation.room == room)
    return f"| {room} | {sum(verdicts.values())} | {verdicts['killed']} | {verdicts['survived']} |"


if __name__ == "__main__":
    main()
