"""The architecture: layers, cycles, who measures and who judges, limits as data."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from mlxstories.ladder.registry import CHECKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlxstories"
LAYERS = (
    {"bounds", "durations", "errors", "findings"},
    {"storage", "backend", "trees"},
    {"batch", "data", "model", "optim"},
    {"distributed", "training", "generation", "runs"},
    {"ladder"},
    {"faults", "repair", "comparison", "export"},
    {"selfcheck"},
    {"plots"},
    {"cli"},
)
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
LINKED = sorted(p for name in ("cli", "data", "plots") for p in (PACKAGE / name).rglob("*.py"))
CHECK_FILES = sorted((PACKAGE / "ladder" / "checks").rglob("*.py"))


def modules() -> dict[str, Path]:
    named = {}
    for path in {*SOURCES, *LINKED}:
        parts = ("mlxstories", *path.relative_to(PACKAGE).with_suffix("").parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path, known: frozenset[str], *, deferred: bool) -> set[str]:
    """Modules of the package that a file imports; with ``deferred``, inside of functions too."""
    tree = parsed(path)
    found = set()
    for node in ast.walk(tree) if deferred else _at_import(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlxstories"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found & known


def _at_import(tree: ast.Module):
    """Nodes that run when a module is imported: not the bodies of functions, nor what is for type checkers."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        waiting += list(ast.iter_child_nodes(node))


def test_dependencies_point_down():
    known = modules()
    wrong = []
    for name, path in known.items():
        package = name.split(".")[1] if "." in name else ""
        for other in imports(path, frozenset(known), deferred=True):
            below = other.split(".")[1] if "." in other else ""
            if package in LAYER_OF and below in LAYER_OF and LAYER_OF[below] > LAYER_OF[package]:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_every_package_has_a_layer():
    packages = {name.split(".")[1] for name in modules() if "." in name}
    assert packages == set(LAYER_OF)


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("model", ("data", "optim")),  # they take token arrays, wherever these come from
        ("optim", ("data", "model")),
        ("data", ("model", "optim")),
        (
            "ladder.bench",
            ("ladder.checks", "ladder.registry", "ladder.limits", "ladder.capture", "ladder.exchange"),
        ),
        ("ladder.checks", ("ladder.climb", "ladder.capture", "ladder.exchange", "ladder.watching")),
    ],
)
def test_packages_that_know_nothing_of_each_other(package, others):
    known = modules()
    inside = {name: path for name, path in known.items() if _in(name, package)}
    wrong = [
        f"{name} imports {other}"
        for name, path in inside.items()
        for other in imports(path, frozenset(known), deferred=True)
        if any(_in(other, forbidden) for forbidden in others)
    ]
    assert inside and not wrong


def _in(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"mlxstories.{package}.")


def test_the_words_of_a_diagnosis_need_no_mlx():
    known = modules()
    waiting, reached = [name for name in known if _in(name, "findings")], set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imports(known[name], frozenset(known), deferred=False)
    for name in reached:
        for node in ast.walk(parsed(known[name])):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [one for one in named if one.split(".")[0] == "mlx"], name


def test_no_import_cycle():
    known = modules()
    graph = {name: imports(path, frozenset(known), deferred=False) - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", CHECK_FILES, ids=lambda path: path.stem)
def test_no_verdict_depends_on_a_bare_number(path):
    """Every threshold is a Limit; 0 and 1 are not thresholds but none and one."""
    tree = parsed(path)
    named = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                numbers = [n.value for n in ast.walk(side) if isinstance(n, ast.Constant)]
                numbers += [named[n.id] for n in ast.walk(side) if isinstance(n, ast.Name) and n.id in named]
                bare = [n for n in numbers if isinstance(n, (int, float)) and n not in (0, 1)]
                assert not bare, f"{path.name}:{node.lineno} compares with {bare[0]}"


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_says_what_it_does(name):
    assert len(CHECKS[name].description.splitlines()) >= 3
    assert CHECKS[name].ask.__doc__.strip()
