"""A ``subject()`` file with all that was captured of a script filled in, and the gaps marked."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from mlxstories.ladder.capture.expressions import Expressions, Gap
from mlxstories.ladder.capture.losses import Losses
from mlxstories.ladder.capture.optimizers import Shell
from mlxstories.ladder.random_states import undisturbed
from mlxstories.storage.files import write_text, writing
from mlxstories.trees import by_path

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_SCRIPT = "script"
_HEAD = '''"""{title}

Written by `mlxstories debug --write-subject`. Mend what is marked TODO, then: mlxstories debug {name}
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_unflatten

from mlxstories.ladder import Subject
from mlxstories.ladder.capture import definitions

HERE = Path(__file__).resolve().parent
'''
_OTHERS = """        # TODO: what else the ladder can examine; each is left out, and so are the checks that need it.
        # train_step=...,  # (model, optimizer, batch) -> loss: {step}
        # val_batches=...,  # () -> batches of validation
        # evaluate=...,  # (model, batches) -> {{"loss": nats a token, "accuracy": share}}: your own validation
        # generate=...,  # (model, prompt, n) -> ids: your own greedy decoding
        # tokenizer=..., train_texts=..., val_texts=...,
"""


def write_subject(script: CapturedScript, path: Path, argv: Sequence[str], *, module: bool) -> list[str]:
    """Write ``path``, and beside it the weights and batches that were captured; returns the gaps, a line each.

    Raises:
        StoriesError: a file cannot be written.
    """
    loop, arrays = script.loop, path.with_suffix(".safetensors")
    written = Expressions(loop.script.names(), _SCRIPT, loop.makings)
    gaps: list[str] = []
    parts = [
        _HEAD.format(title=f"{script.target} as a setup of the ladder.", name=path.name),
        _script(script.target, path, argv, module),
        _model(script, written, gaps),
        _batches(script, arrays.name),
        Losses(script, written).source(gaps),
        _optimizer(script, written, gaps),
        _subject(script, gaps),
    ]
    held = {f"weights/{name}": a for name, a in by_path(loop.snapshot.parameters()).items()}
    masked = any((mask == 0).any() for _, _, mask in script.batches)
    for index, batch in enumerate(script.batches):
        for name, array in zip(("inputs", "targets", "mask")[: 3 if masked else 2], batch, strict=False):
            held[f"batches/{index}/{name}"] = mx.array(_narrow(array))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mx.save_safetensors(str(arrays), held)
    write_text(path, "\n".join(parts))
    return gaps


def write_template(target: str, path: Path, argv: Sequence[str], *, module: bool, reason: str) -> None:
    """Write ``path`` for a script of which nothing could be captured, with everything left to fill in."""
    parts = [
        _HEAD.format(
            title=f"{target} as a setup of the ladder. It was not captured: {reason}", name=path.name
        ),
        _script(target, path, argv, module),
        _todo("model", "", "a fresh, randomly initialised model: ids [B, T] to logits [B, T, V]"),
        _todo(
            "train_batches", "seed", "one epoch of (inputs, targets) or (inputs, targets, mask), each [B, T]"
        ),
        _todo("loss", "model, batch", "the scalar that training minimises"),
        _todo("optimizer", "", "a new optimizer, as training has it"),
        "VOCAB_SIZE = 2  # TODO: the number of token ids\n\n",
        _subject(None, []),
    ]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(parts))


def _narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32) if array.dtype.kind in "iu" else array.astype(np.float32)


def _todo(name: str, arguments: str, what: str) -> str:
    return f'\ndef {name}({arguments}):\n    raise NotImplementedError("TODO: return {what}")\n'


def _script(target: str, path: Path, argv: Sequence[str], module: bool) -> str:
    place = repr(target)
    if not module:
        place = f"HERE / {os.path.relpath(target, path.parent)!r}"
    options = [place, *([repr(list(argv))] if argv else []), *(["module=True"] if module else [])]
    return f"# What the script defines; its training does not run.\n{_SCRIPT} = definitions({', '.join(options)})\n"


def _filled(gaps: list[str], name: str, what: str, write: Callable[[], str], instead: str) -> str:
    """The source that ``write`` gives; for a gap, a note of it and what stands there instead."""
    try:
        return write()
    except Gap as gap:
        gaps.append(f"{name}: {what} holds {gap}")
        return instead


def _model(script: CapturedScript, written: Expressions, gaps: list[str]) -> str:
    own = script.loop.model
    name = type(own).__name__
    todo = f'raise NotImplementedError("TODO: return a fresh {name}")'
    made = _filled(gaps, "model", f"the making of {name}", lambda: written.of(own), "")
    if not made:
        return f"\ndef model():\n    {todo}\n"
    changed = _changed_after(script)
    if changed:
        gaps.append(f"model: the script changes {changed} after {name} is made")
        made += (
            f"\n    raise NotImplementedError('TODO: change {changed} and the like here, as the script does')"
        )
    return textwrap.dedent('''
        def model():
            """As it was before its first update; leave ``update`` out for other random weights."""
            fresh = MADE
            fresh.update(tree_unflatten(list(under("weights").items())))
            return fresh
        ''').replace("MADE", made)


def _changed_after(script: CapturedScript) -> str | None:
    """A parameter that a model was given or that was frozen after it was made, as with LoRA; None where none is."""
    making = script.loop.makings.get(id(script.loop.model))
    with suppress(Exception), script.inside(), undisturbed():
        again = type(script.loop.snapshot)(*making.args, **making.kwargs)
        for parameters in ("parameters", "trainable_parameters"):
            models = (script.loop.snapshot, again)
            own, first = (by_path(getattr(m, parameters)()).keys() for m in models)
            if own != first:
                return min(own ^ first)
    return None


def _batches(script: CapturedScript, arrays: str) -> str:
    count = len(script.batches)
    return textwrap.dedent(f'''
        ARRAYS = mx.load(str(HERE / "{arrays}"))


        def under(folder):
            """The arrays of a folder by name."""
            start = f"{{folder}}/"
            return {{name.removeprefix(start): a for name, a in ARRAYS.items() if name.startswith(start)}}


        def train_batches(seed):
            """The {count} batches that were recorded, in their order; TODO: hand out all of yours."""
            begin = np.random.default_rng(seed).integers({count}) if seed else 0
            for index in range({count}):
                yield under(f"batches/{{(begin + index) % {count}}}")
        ''')


def _optimizer(script: CapturedScript, written: Expressions, gaps: list[str]) -> str:
    own = script.loop.optimizer
    rate = float(f"{max(script.rates, default=1e-3):.6g}")
    default = f"optim.AdamW({rate!r}, bias_correction=True)  # TODO: the script's own"
    if own is None or isinstance(script.loop.first_optimizer, Shell):
        gaps.append("optimizer: the script's own is none of MLX's")
        made = default
    else:
        made = _filled(
            gaps, "optimizer", f"the making of {type(own).__name__}", lambda: written.of(own), default
        )
    lines = f"\ndef optimizer():\n    made = {made}\n"
    first = script.loop.first_optimizer
    by_hand = first is not None and not first._schedulers and not hasattr(first, "optimizers")
    if by_hand and abs(rate - float(first.learning_rate)) > 1e-5 * rate:
        lines += f"    made.learning_rate = {rate!r}  # the highest that was seen\n"
    return lines + "    return made\n"


def _subject(script: CapturedScript | None, gaps: list[str]) -> str:
    left_out = {gap.partition(":")[0] for gap in gaps} & {"loss"}
    fields = [f for f in ("model", "train_batches", "loss", "optimizer") if f not in left_out]
    lines = "".join(f"        {field}={field},\n" for field in fields)
    vocab = script.roles.first.vocab if script is not None else "VOCAB_SIZE"
    known = script.subject.updates if script is not None else None
    updates = f"        updates={known},  # of the whole run\n" if known is not None else ""
    step = "value_and_grad of the loss, then optimizer.update"
    if script is not None and script.loop.seen.gradient:
        line = script.loop.seen.gradient[-1]
        step = f"the loop at {os.path.basename(line.file)}:{line.line}"
    return (
        f"\ndef subject():\n    return Subject(\n{lines}        vocab_size={vocab},\n{updates}"
        + _OTHERS.format(step=step)
        + "    )\n"
    )
