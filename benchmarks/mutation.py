"""Do the tests notice? Small mutations of the core, one at a time, and the tests of their room.

    python benchmarks/mutation.py --sample 40 --seed 1 --json mutation.json --docs docs/mutation.md

Mutations are cosmic-ray's (``pip install cosmic-ray``): numbers, comparisons, arithmetic, truth values. They are made
in a copy of the tracked files. A mutation is killed when a test fails, or when the tests take ten times the CPU seconds
that they take without it; one that survives is listed with its line, and is either a gap in the tests or changes
nothing that can be seen. A check is tried by the tests of its thresholds, by the faults that it names and by their
twins.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
ROOMS = {
    "optim": ("mlxstories/optim/*.py", "tests/optim"),
    "losses": ("mlxstories/training/losses.py", "tests/training/test_losses.py tests/training/test_evaluation.py"),
    "step": ("mlxstories/training/step.py", "tests/training/test_step.py tests/training/test_memory.py"),
    "evaluation": ("mlxstories/training/evaluation.py", "tests/training/test_evaluation.py"),
    "generation": ("mlxstories/generation/*.py", "tests/generation"),
    "data": ("data/*.py", "tests/data"),
    "statistics": ("mlxstories/comparison/statistics.py", "tests/comparison/test_statistics.py"),
    "findings": ("mlxstories/findings/*.py", "tests/findings tests/ladder/test_engine.py"),
    "checks": ("mlxstories/ladder/checks/*.py", "tests/ladder/test_judging.py tests/ladder/test_verdicts.py"),
}  # fmt: skip
FAULTS = "tests/ladder/test_faults.py tests/ladder/test_twins.py tests/ladder/test_state.py tests/ladder/test_kinds.py"
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
_BEGIN, _END = "<!-- table:begin -->", "<!-- table:end -->"


@dataclass(frozen=True)
class Mutant:
    """One mutation: the how-manieth place of a file where an operator applies."""

    room: str
    path: str
    operator: str
    occurrence: int


@dataclass(frozen=True)
class Outcome:
    """What became of it: "killed" or "survived", and the line before and after."""

    mutant: Mutant
    verdict: str
    before: str
    after: str
    line: int


@click.command()
@click.option("--sample", default=40, show_default=True, help="Mutants of each room.")
@click.option("--seed", default=0, show_default=True)
@click.option("--room", "rooms", multiple=True, type=click.Choice(list(ROOMS)), help="These rooms alone.")
@click.option("--own", is_flag=True, help="Only files with tests of their own name, tried by these alone.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the outcomes here.")
@click.option("--docs", type=click.Path(exists=True, path_type=Path), help="Renew the table of this page.")
def main(sample, seed, rooms, own, path, docs):
    """Mutate, test, count."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy(Path(folder))
        for room in rooms or ROOMS:
            mutants = [mutant for mutant in places(copy, room) if not own or _own(mutant)]
            chosen = random.Random(seed).sample(mutants, min(sample, len(mutants)))
            seconds = 0.0 if own else _tested(copy, ROOMS[room][1].split(), None)[1]
            patience = max(_AT_LEAST, int(_PATIENCE * seconds))
            for mutant in chosen:
                outcome = tried(copy, mutant, [_own(mutant)] if own else _trials(mutant), patience)
                outcomes.append(outcome)
                if outcome.verdict == "survived":
                    print(
                        f"{mutant.path}:{outcome.line}\n  - {outcome.before}\n  + {outcome.after}", flush=True
                    )
            print(_row(room, outcomes), flush=True)
    if path:
        path.write_text(
            json.dumps({"seed": seed, "outcomes": [asdict(outcome) for outcome in outcomes]}, indent=1)
        )
    if docs:
        before, rest = docs.read_text(encoding="utf-8").split(_BEGIN)
        docs.write_text(
            f"{before}{_BEGIN}\n{table(outcomes, seed)}{_END}{rest.split(_END)[1]}", encoding="utf-8"
        )


def _copy(folder: Path) -> Path:
    """The tracked files, in a folder where they may be broken."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
    return folder


def places(copy: Path, room: str):
    """All mutants of a room."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator

    for path in sorted(copy.glob(ROOMS[room][0])):
        nodes = list(ast_nodes(get_ast_from_path(path)))
        for name in OPERATORS:
            operator = get_operator(f"core/{name}")()
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            for occurrence in range(count):
                yield Mutant(room, str(path.relative_to(copy)), name, occurrence)


def tried(copy: Path, mutant: Mutant, trials: list[list[str]], patience: int) -> Outcome:
    """Make the mutation, run the tests, take it back."""
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    operator = get_operator(f"core/{mutant.operator}")()
    with use_mutation(copy / mutant.path, operator, mutant.occurrence) as (before, after):
        was, now = before.splitlines(), after.splitlines()
        line = next(i for i, (a, b) in enumerate(zip(was, now, strict=True)) if a != b)
        passed = all(_tested(copy, trial, patience)[0] for trial in trials)
        verdict = "survived" if passed else "killed"
    return Outcome(mutant, verdict, was[line].strip(), now[line].strip(), line + 1)


def _trials(mutant: Mutant) -> list[list[str]]:
    """Words to pytest, for one run after the other until one fails: the file's own tests go first."""
    tests = [ROOMS[mutant.room][1].split()]
    if (own := _own(mutant)) and own != tests[0]:
        tests.insert(0, own)
    if mutant.room == "checks" and (names := _judged(mutant.path)):
        tests.append([*FAULTS.split(), "-k", " or ".join(sorted(names))])
    return tests


def _own(mutant: Mutant) -> list[str]:
    """The file of tests that has the name of the mutated one, if there is one."""
    folder = Path(ROOMS[mutant.room][1].split()[0])
    own = (folder if folder.suffix == "" else folder.parent) / f"test_{Path(mutant.path).name}"
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
    verdicts = Counter(outcome.verdict for outcome in outcomes if outcome.mutant.room == room)
    return f"| {room} | {sum(verdicts.values())} | {verdicts['killed']} | {verdicts['survived']} |"


def table(outcomes: list[Outcome], seed: int) -> str:
    """The table of the page, and the survivors."""
    rooms = dict.fromkeys(outcome.mutant.room for outcome in outcomes)
    killed = sum(outcome.verdict == "killed" for outcome in outcomes)
    lines = [
        f"Seed {seed}: {killed} of {len(outcomes)} killed ({killed / max(1, len(outcomes)):.1%}).\n",
        "| room | mutants | killed | survived |\n| --- | --- | --- | --- |",
        *(_row(room, outcomes) for room in rooms),
        "\nSurvivors:\n",
    ]
    for outcome in outcomes:
        if outcome.verdict == "survived":
            lines.append(
                f"- `{outcome.mutant.path}:{outcome.line}`: `{outcome.before}` became `{outcome.after}`"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
