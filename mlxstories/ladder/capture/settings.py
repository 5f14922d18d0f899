"""Constants of a script replaced for one run: ``--set NAME=VALUE``."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.ladder.patches import Patches
from mlxstories.ladder.where.places import own_file


class Settings:
    """Values for names that a script assigns at module level or in a class, or as an option's default; and, where they
    are constants, inside functions, in calls, as attributes and items, as defaults of parameters and in dictionaries.

    Raises:
        StoriesError: a setting is not NAME=VALUE.
    """

    def __init__(self, settings: Sequence[str]):
        self.values: dict[str, Any] = {}
        self.used: set[str] = set()
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or not name.isidentifier():
                raise StoriesError(f"--set {setting}: give it as NAME=VALUE")
            try:
                self.values[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                self.values[name] = value  # a word

    @property
    def unused(self) -> list[str]:
        """Names that no file of the script assigns."""
        return sorted(set(self.values) - self.used)

    def install(self, patches: Patches) -> None:
        """Compile the user's own modules with these values."""
        if not self.values:
            return
        to_code, get_data = SourceFileLoader.source_to_code, SourceFileLoader.get_data

        def source_to_code(loader, data, path, **options):
            code = self.compiled(data, path) if own_file(str(path)) else None
            return code or to_code(loader, data, path, **options)

        def without_bytecode(loader, path):
            if str(path).endswith(".pyc") and own_file(str(path)):
                raise OSError(f"{path} is passed over")
            return get_data(loader, path)

        patches.replace(SourceFileLoader, "source_to_code", source_to_code)
        patches.replace(SourceFileLoader, "get_data", without_bytecode)

    def compiled(self, source: bytes, path: str) -> Any:
        """The code of a file in which the constants are replaced."""
        tree = ast.parse(source, path)
        self._replace(tree)
        return compile(tree, path, "exec")

    def _replace(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef)):
                for statement in node.body:
                    self._assignment(statement)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                self._assignment(node, literal=True)
            elif isinstance(node, ast.arguments):
                self._defaults(node)
            elif isinstance(node, ast.Call):
                self._option(node)
                for keyword in node.keywords:
                    keyword.value = self._value(keyword.arg, keyword.value, literal=True)
            elif isinstance(node, ast.Dict):
                keys = [getattr(key, "value", None) for key in node.keys]
                node.values = [
                    self._value(k, v, literal=True) for k, v in zip(keys, node.values, strict=True)
                ]

    def _option(self, node: ast.Call) -> None:
        """An option of argparse, by its name."""
        if getattr(node.func, "attr", "") != "add_argument":
            return
        names = {str(a.value).lstrip("-").replace("-", "_") for a in node.args if isinstance(a, ast.Constant)}
        for keyword in node.keywords:
            if keyword.arg == "default":
                name = next(iter(names & set(self.values)), "")
                keyword.value = self._value(name, keyword.value)

    def _assignment(self, node: ast.stmt, literal: bool = False) -> None:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node.value = self._value(_name(node.target, literal), node.value, literal)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                node.value = self._value(_name(target, literal), node.value, literal)
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)
                    node.value.elts = [self._value(_name(t, literal), v, literal) for t, v in pairs]

    def _defaults(self, node: ast.arguments) -> None:
        """What a function's parameters are where nothing is given."""
        plain = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
        node.defaults = [
            self._value(a.arg, v, literal=True) for a, v in zip(plain, node.defaults, strict=True)
        ]
        node.kw_defaults = [
            value and self._value(a.arg, value, literal=True)
            for a, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)
        ]

    def _value(self, name: str | None, old: ast.expr, literal: bool = False) -> ast.expr:
        """The value set for ``name``, or the old one; with ``literal`` only where that is a constant."""
        if name not in self.values or (literal and not _constant(old)):
            return old
        self.used.add(name)
        new = ast.parse(repr(self.values[name]), mode="eval").body
        return ast.fix_missing_locations(ast.copy_location(new, old))


def _name(target: ast.expr, parts: bool) -> str:
    """What an assignment's target is called; with ``parts`` also ``width`` of ``config.width`` and
    ``config["width"]``."""
    if parts and isinstance(target, ast.Subscript):
        return str(getattr(target.slice, "value", ""))
    return getattr(target, "id", "") or (getattr(target, "attr", "") if parts else "")


def _constant(node: ast.expr) -> bool:
    """Whether a value is written out, perhaps with arithmetic, such as 2**14."""
    parts = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
    return all(isinstance(part, parts) for part in ast.walk(node))
