"""What a script defines, without its training: run to its first gradient, or to its end where it has a guard."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.findings.notebooks import builtins_of, is_notebook, pieces
from mlxstories.ladder.capture import hooks
from mlxstories.ladder.capture.running import Stop
from mlxstories.ladder.capture.world import World
from mlxstories.ladder.subject import describe_error


def definitions(target: str | Path, argv: Sequence[str] = (), *, module: bool = False) -> Any:
    """The names that a script defines at its top level, as attributes.

    Its training does not run: a script with ``if __name__ == "__main__"`` is imported, any other one, and each cell of
    a notebook, is stopped at its first gradient.

    Args:
        target: a file, or a module's name where ``module`` is true.
        argv: the script's own arguments.

    Raises:
        StoriesError: it cannot be run so far.
    """
    folder = os.getcwd() if module else str(Path(target).resolve().parent)
    with open(os.devnull, "w", encoding="utf-8") as log:
        world, until = World([str(target), *argv], folder, log), _Until()
        hooks.install(world.patches, until, world.files)
        try:
            with world:
                return SimpleNamespace(**_run(str(target), module))
        finally:
            until.listening = False  # what it made by our hooks is used from now on
            world.close()


def _run(target: str, module: bool) -> dict[str, Any]:
    spec = importlib.util.find_spec(target) if module else None
    file = spec.origin if spec else target
    try:
        path = Path(file or target).resolve()
        sources = [source for _, source in pieces(path)]
        codes = [compile(source, path, "exec") for source in sources]
    except (OSError, SyntaxError, ValueError) as error:
        raise StoriesError(f"{target}: cannot be read: {error}") from error
    main = sys.modules["__main__"]
    name = "__script__" if any(map(_guarded, sources)) else "__main__"
    package = spec.parent if spec else None
    main.__dict__.update(__file__=file, __name__=name, __package__=package, **builtins_of(path))
    sys.modules[name] = main  # dataclasses look their module up
    try:
        for code in codes:
            with suppress(Stop):
                exec(code, main.__dict__)
    except SystemExit:
        pass
    except Exception as error:
        raise StoriesError(f"{target}: raised {describe_error(error)}") from error
    return {key: value for key, value in vars(main).items() if not key.startswith("__")}


def _guarded(source: bytes) -> bool:
    """Whether the code that runs the script stands under ``if __name__ == "__main__"``."""
    tests = [node.test for node in ast.parse(source).body if isinstance(node, ast.If)]
    return any("__name__" in ast.dump(test) for test in tests)


class _Until:
    """Stops a script at its first gradient, and before a training of our own."""

    listening = True

    def on_gradient(self, call):
        raise Stop

    def on_trainer(self, trainer):
        raise Stop

    def on_update(self, optimizer, apply, gradients, nothing):
        self.listening = False
        try:
            return apply(optimizer, gradients)
        finally:
            self.listening = True

    def on_assignment(self, model, assign):
        return assign()

    def on_made(self, value, frame):
        """Not of interest."""

    def on_loss(self, logits, targets, weights, frame):
        """Not of interest."""

    def on_saved(self, values, frame):
        """Not of interest."""

    def on_loaded(self):
        """Not of interest."""

    def on_compiled(self, listed, run):
        return run()

    def on_note(self, text):
        """Not of interest."""


def is_script(path: Path) -> bool:
    """Whether a file is a training script: a notebook, or Python that assigns no ``subject`` at its top level. It is
    not run to find out."""
    if path.suffix != ".py":
        return is_notebook(path)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return False  # importing it says what is wrong
    return not any("subject" in _names(node) for node in _top_level(tree))


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _top_level(node)


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
