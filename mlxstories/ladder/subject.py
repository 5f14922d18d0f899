"""What the ladder examines: a user's model, data and step, and how they are loaded from a file."""

from __future__ import annotations

import atexit
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.errors import StoriesError
from mlxstories.findings.notebooks import is_notebook
from mlxstories.findings.place import spot


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A training setup to examine; what is left out makes the checks that need it skipped, never passed.

    Attributes:
        model: () -> a fresh, randomly initialised ``nn.Module``; called on int32 [B, T] it returns logits
            [B, T, V] (of a tuple the first item is taken).
        vocab_size: number of token ids, V.
        train_batches: seed -> one epoch of batches: ``Batch``, tuples (inputs, targets[, mask]) or dicts of these,
            whose further arrays are cut as their rows and columns are.
        val_batches: () -> validation batches.
        loss: (model, batch) -> scalar that training minimises (of a tuple the first item is taken); by default the mean
            cross-entropy of real tokens.
        optimizer: () -> ``mlx.optimizers.Optimizer``; by default AdamW at 1e-3 with bias correction.
        train_step: (model, optimizer, batch) -> scalar loss; by default the gradient of ``loss``, then
            ``optimizer.update``.
        evaluate: (model, batches) -> {"loss": float, "accuracy": float}.
        generate: (model, prompt ids, n) -> n ids, greedy.
        tokenizer: has ``encode(str) -> list[int]`` and ``decode(list[int]) -> str``.
        train_texts, val_texts: the stories themselves.
        floor: entropy of the source in nats per token, where it is known.
        updates: optimiser updates of the planned run, not its batches; warmup, schedule and Adam's first steps are
            judged over them. Without it a usual run is assumed: 20 epochs, and at least 1000 updates.
        name: shown in reports.
    """

    model: Callable[[], nn.Module]
    vocab_size: int
    train_batches: Callable[[int], Iterable[Any]]
    val_batches: Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], mx.array] | None = None
    optimizer: Callable[[], Optimizer] | None = None
    train_step: Callable[[nn.Module, Optimizer, Any], mx.array] | None = None
    evaluate: Callable[[nn.Module, Iterable[Any]], dict[str, float]] | None = None
    generate: Callable[[nn.Module, list[int], int], list[int]] | None = None
    tokenizer: Any = None
    train_texts: Sequence[str] | None = None
    val_texts: Sequence[str] | None = None
    floor: float | None = None
    updates: int | None = None
    name: str = "subject"

    def __post_init__(self):
        if isinstance(self.vocab_size, bool) or not isinstance(self.vocab_size, int) or self.vocab_size < 2:
            raise StoriesError(
                f"Subject.vocab_size must be an integer of at least 2, got {self.vocab_size!r}: "
                "give the number of token ids"
            )
        if self.updates is not None and (
            isinstance(self.updates, bool) or not isinstance(self.updates, int) or self.updates < 1
        ):
            raise StoriesError(
                f"Subject.updates must be an integer of at least 1, got {self.updates!r}: give the number of optimiser "
                "updates of the planned run"
            )
        functions = ("model", "train_batches", "val_batches", "loss", "optimizer", "train_step")
        for field in (*functions, "evaluate", "generate"):
            value = getattr(self, field)
            required = field in ("model", "train_batches")
            if (required or value is not None) and not callable(value):
                raise StoriesError(
                    f"Subject.{field} must be a function, got {value!r}: wrap it in a lambda or def"
                )
        if self.tokenizer is not None and not all(
            callable(getattr(self.tokenizer, method, None)) for method in ("encode", "decode")
        ):
            raise StoriesError(
                "Subject.tokenizer must have encode(str) and decode(ids): wrap yours in a small class"
            )
        for field in ("train_texts", "val_texts"):
            value = getattr(self, field)
            if isinstance(value, str):
                raise StoriesError(
                    f"Subject.{field} must be a sequence of stories, got one string: put it in a list"
                )
            if value is not None and not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
                raise StoriesError(
                    f"Subject.{field} must be a sequence of stories, got {type(value).__name__}: make it a list"
                )


def load_subject(spec: str) -> Subject:
    """Load the subject of ``file.py`` or ``file.py:name``, where name is a function that returns a Subject.

    A file that defines no ``subject``, and a notebook, is taken for a training script: it is run under watch up to its
    loop.

    Raises:
        StoriesError: the file is missing, does not import, lacks the function, or returns something else.
    """
    path, name = _split(spec)
    wanted = f"give a training script or notebook, or a Python file that defines {name}()"
    if not path.is_file():
        what = "a directory, and no run" if path.is_dir() else "no such file"
        raise StoriesError(f"{path}: {what}; {wanted}")
    if path.suffix != ".py" and not (is_notebook(path) and name == "subject"):
        raise StoriesError(f"{path}: not a Python file; {wanted}")
    if name == "subject":
        from mlxstories.ladder.capture import CapturedScript, OwnTraining, is_script

        if is_script(path):
            try:
                script = CapturedScript(str(path))
            except OwnTraining as own:
                return own.subject
            atexit.register(script.close)  # it waits in its loop for as long as the subject may be used
            return script.subject
    module = _import(path)
    factory = getattr(module, name, None)
    if factory is None:
        raise StoriesError(f"{path}: defines no {name}; add a function {name}() that returns a Subject")
    try:
        subject = factory() if callable(factory) else factory
    except (StoriesError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit() as well, or a base class of its own
        raise StoriesError(
            f"{path}: {name}() raised {describe_error(error)}; fix it and run again"
        ) from error
    if not isinstance(subject, Subject):
        raise StoriesError(
            f"{path}: {name}() returned {type(subject).__name__}, not a mlxstories.ladder.Subject; return Subject(...)"
        )
    if subject.name == "subject":
        import dataclasses

        subject = dataclasses.replace(subject, name=path.name if name == "subject" else f"{path.name}:{name}")
    return subject


def _split(spec: str) -> tuple[Path, str]:
    head, colon, tail = spec.rpartition(":")
    if colon and tail.isidentifier() and head:
        return Path(head), tail
    return Path(spec), "subject"


def _import(path: Path):
    name = f"_subject_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StoriesError(f"{path}: not a Python file; give a .py file that defines subject()")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickling look the module up by name
    if folder not in sys.path:  # as for a script; it stays there, for a subject's functions may import, too
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (StoriesError, KeyboardInterrupt):
        raise
    except BaseException as error:
        sys.modules.pop(name, None)
        raise StoriesError(f"{path}: cannot be imported: {describe_error(error)}") from error
    return module


def describe_error(error: BaseException) -> str:
    """An exception as one line, with the user's file and line."""
    try:
        text = " ".join(str(error).split()) or "no message"
    except Exception:  # its __str__ is the user's too
        text = "no message that can be shown"
    file, _, line = (blame(error) or "").rpartition(":")
    return f"{type(error).__name__}: {text[:300]}" + (f" ({spot(file, int(line))})" if line.isdigit() else "")


def blame(error: BaseException) -> str | None:
    """``file:line`` of the innermost frame that is the user's own code, or None."""
    ours = str(Path(__file__).resolve().parent)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<")) and "importlib" not in frame.filename
    ]
    own = [
        f for f in frames if "site-packages" not in f.filename and not f.filename.startswith(sys.base_prefix)
    ]
    chosen = (own or frames)[-1:]
    return f"{chosen[0].filename}:{chosen[0].lineno}" if chosen else None
