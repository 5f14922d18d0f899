"""Which arguments and captured variables of a loss hold the batch, and the same call on another batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlxstories.errors import StoriesError
from mlxstories.ladder.capture.batch_parts import BatchParts, ends_of
from mlxstories.ladder.capture.copies import host, leaves, refitted, seen_by, whole, with_leaf
from mlxstories.ladder.capture.hooks import GradientCall
from mlxstories.ladder.capture.reading import Reading, read
from mlxstories.trees import by_path


class Roles:
    """Which arguments and captured variables of a loss hold the inputs, targets, mask, tokens or lengths."""

    def __init__(self, call: GradientCall, first: Reading):
        self._find(call, first, cut=False)
        if self._values(call) is None and first.inputs.shape[1] > 2 and not first.mask[:, -1].any():
            self._find(call, _without_last(first), cut=True)
        self._look_closer(call)

    def _find(self, call: GradientCall, first: Reading, *, cut: bool) -> None:
        """Which arrays play a part in what was read."""
        self.first, self.parts = first, BatchParts(first, cut)
        self.places: dict[tuple, str] = {}
        self.padding: int | None = None  # the target of every cell that does not count
        self.masked = False
        for place, array in _places(call):
            role = self.parts.of(host(array)) if array.size <= 2 * first.inputs.size else None
            if role:
                self.places[place] = role
        if (first.inputs == first.targets).all():
            self._tell_apart()

    def _look_closer(self, call: GradientCall) -> None:
        """What the arrays that were found say of padding and of what counts.

        Raises:
            StoriesError: there is no batch among them.
        """
        first = self.first
        self.weights = self._weights(call)
        full = self._values(call)
        if full is None and first.classes not in (None, first.vocab):
            raise StoriesError(
                f"its model returns {first.vocab} numbers a token, of which its loss makes {first.classes} logits: "
                "have the model return these"
            )
        if full is None and (highest := int(first.inputs.max())) >= first.vocab:
            raise StoriesError(
                f"its model is handed token id {highest} and returns {first.vocab} numbers a token, for the ids 0 to "
                f"{first.vocab - 1}: set its vocabulary size to at least {highest + 1}, or encode with fewer tokens"
            )
        if full is None and self._altered(call):
            raise StoriesError(
                "its loss changes token ids before its model reads them, as for a masked language model; the ladder "
                "examines models of the next token, which are best handed such ids changed"
            )
        if full is None:
            raise StoriesError(
                "its loss takes neither inputs and targets nor tokens as arguments or captured variables"
            )
        if "spans" in full:
            self._settle(call)
        targets = full["targets"]
        # Also of cells that do not count, which a loss may look at.
        self.first = first = replace(first, targets=targets)
        masked = set(targets[first.mask == 0].tolist())
        lone = len(masked) == 1 and not (masked & set(targets[first.mask > 0].tolist()))
        self.padding = masked.pop() if lone else None
        self.masked = bool((first.mask == 0).any()) or self._has_mask

    def _tell_apart(self) -> None:
        """Targets that are the inputs: the first such array is what the model reads, and the only one is both."""
        alike = [place for place, role in self.places.items() if role == "targets"]
        if alike:
            self.places[alike[0]] = "inputs"

    def _settle(self, call: GradientCall) -> None:
        """Where rows end, spans may point beyond them: ask the loss about shorter ones."""
        inputs, targets = self.first.inputs, self.first.targets
        short, apart = np.ones(inputs.shape, np.float32), self.parts.apart
        short[:, inputs.shape[1] // 2 :] = 0
        for shift in (0, -1, 1, -2, 2):
            self.parts.apart = np.add(apart, (0, shift))
            if (self._reading(self.give(call, inputs, targets, short)).mask == short).all():
                return
        self.parts.apart = apart

    def _altered(self, call: GradientCall) -> bool:
        """Whether the loss is given ids most of which the model reads, with others in place of the rest."""
        x = self.first.inputs
        handed = [host(array) for _, array in _places(call) if whole(array) and tuple(array.shape) == x.shape]
        return any(0.5 <= (array == x).mean() < 1 for array in handed)

    def besides(self, call: GradientCall) -> list[list[int]]:
        """Shapes of what else the loss is handed for each row."""
        rows = len(self.first.inputs)
        others = (array for place, array in _places(call) if place not in self.places)
        return [list(array.shape) for array in others if array.ndim and array.shape[0] == rows]

    def _weights(self, call: GradientCall) -> list[tuple]:
        """Places where the loss is handed the parameters themselves, as with `mx.value_and_grad`."""
        own = by_path(call.model.trainable_parameters()).keys()
        named = [(("arg", i), v) for i, v in enumerate(call.args)] + [
            (("kw", k), v) for k, v in call.kwargs.items()
        ]
        return [place for place, value in named if type(value) is dict and by_path(value).keys() == own]

    def _reading(self, call: GradientCall) -> Reading:
        reading = read(call)
        return _without_last(reading) if self.parts.cut else reading

    # --- from the script's calls to batches, and back ---------------------------------------------

    def take(self, call: GradientCall) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and mask of a later call; the call is run only if nothing else shows the mask or the
        inputs."""
        values = self._values(call)
        inputs, targets = values["inputs"], values["targets"]
        missing = self.parts.missing(inputs)
        if missing.any():
            seen = self._reading(call)
            if not self.parts.missing(seen.inputs).any():
                self.parts.unread = (int(inputs[missing][0]), int(seen.inputs[missing][0]))
                return seen.inputs, targets, seen.mask
        if "mask" in values and not (self.first.mask > 0).all():
            mask = values["mask"].reshape(inputs.shape) > 0
        elif "spans" in values:
            cells, ends = np.arange(inputs.shape[1]), values["spans"] - self.parts.apart
            mask = (cells >= ends[:, :1]) & (cells <= ends[:, 1:])
        elif (self.first.mask > 0).all():
            mask = np.ones(inputs.shape)
        elif "lengths" in values:
            mask = np.arange(inputs.shape[1]) < values["lengths"][:, None] - self.parts.extra
        elif self.padding is not None:
            mask = targets != self.padding
        else:
            mask = self._reading(call).mask
        return inputs, targets, np.asarray(mask, np.float32)

    def _values(self, call: GradientCall) -> dict[str, np.ndarray] | None:
        values = {self.places[place]: host(array) for place, array in _places(call) if place in self.places}
        if "tokens" in values:
            values |= {"inputs": values["tokens"][:, :-1], "targets": values["tokens"][:, 1:]}
        if "row mask" in values:
            values["mask"] = values["row mask"][:, 1:]
        if "labels" in values:
            values["targets"] = values["labels"][:, 1:]
        if (self.first.inputs == self.first.targets).all() and "inputs" in values:
            values.setdefault("targets", values["inputs"])
        if not {"inputs", "targets"} <= set(values):
            return None
        values["targets"] = values["targets"].reshape(values["inputs"].shape)
        return {n: v.astype(np.int64) if n in ("inputs", "targets") else v for n, v in values.items()}

    def give(self, call: GradientCall, inputs, targets, mask) -> GradientCall:
        """The same call on another batch."""
        if self.parts.unread is not None:
            padding, read_instead = self.parts.unread
            # Where nothing but such padding tells what counts, it stands wherever nothing does.
            left_out = (mask == 0) & ((inputs == read_instead) | (not (self._told or self._by_padding)))
            inputs = np.where(left_out, padding, inputs)
        tokens, apart = np.concatenate([inputs, targets[:, -1:]], axis=1), "labels" in self.places.values()
        if self._by_padding:
            targets = np.where(mask > 0, targets, self.padding)
            if not apart:
                tokens[:, 1:] = np.where(mask > 0, tokens[:, 1:], self.padding)
        if apart:
            tokens[:, -1:] = np.maximum(tokens[:, -1:], 0)  # is read, though what the model says of it is not
        values = {
            "inputs": inputs,
            "targets": targets,
            "mask": mask,
            "row mask": np.concatenate([np.ones_like(mask[:, :1]), mask], axis=1),
            "tokens": tokens,
            "labels": np.concatenate([inputs[:, :1], targets], axis=1),
        }
        args, kwargs, seen = call.args, call.kwargs, seen_by(call.function)
        changed: dict[str, Any] = {}
        for (kind, key, *path), old in list(_places(call)):
            role = self.places.get((kind, key, *path))
            if role is None:
                continue
            if role == "lengths":
                new = self._length_of(inputs, mask)
            else:
                new = ends_of(mask) + self.parts.apart if role == "spans" else values[role]
            new = _like(old, new, self.first.inputs)
            if kind == "arg":
                args = (*args[:key], with_leaf(args[key], path, new), *args[key + 1 :])
            elif kind == "kw":
                kwargs = {**kwargs, key: with_leaf(kwargs[key], path, new)}
            else:
                changed[key] = with_leaf(changed.get(key, seen[key]), path, new)
        weights = call.model.trainable_parameters() if self.weights else None
        for kind, key in self.weights:
            if kind == "arg":
                args = (*args[:key], weights, *args[key + 1 :])
            else:
                kwargs = {**kwargs, key: weights}
        return replace(call, function=refitted(call.function, changed), args=args, kwargs=kwargs)

    @property
    def _by_padding(self) -> bool:
        """Whether the loss knows what counts from the padding among its targets alone."""
        return self.masked and self.padding is not None and not self._told

    @property
    def _told(self) -> bool:
        """Whether something beside the tokens says what counts."""
        return self._has_mask or bool({"lengths", "spans"} & set(self.places.values()))

    @property
    def _has_mask(self) -> bool:
        return bool({"mask", "row mask"} & set(self.places.values()))

    def _length_of(self, inputs, mask) -> np.ndarray:
        if (mask == 0).any():
            return (mask.sum(1) + self.parts.extra).astype(np.int64)
        real = inputs != self.parts.pad_input
        return real.shape[1] - np.argmax(real[:, ::-1], axis=1) + (real.all(1) & (self.parts.extra > 0))


def _places(call: GradientCall) -> Iterator[tuple[tuple, Any]]:
    """Every array that a loss is called with or sees, with where it stands."""
    named = [("arg", i, value) for i, value in enumerate(call.args)]
    named += [("kw", key, value) for key, value in call.kwargs.items()]
    named += [("seen", name, value) for name, value in seen_by(call.function).items()]
    for kind, key, value in named:
        for path, array in leaves(value):
            yield (kind, key, *path), array


def _without_last(reading: Reading) -> Reading:
    """A reading but for the last place of each row."""
    cut = {name: getattr(reading, name)[:, :-1] for name in ("inputs", "targets", "mask")}
    return replace(reading, **cut)


def _like(old: Any, new: np.ndarray, inputs: np.ndarray) -> Any:
    if old.ndim == 1 and old.shape[0] == inputs.size and new.ndim == 2:
        new = new.reshape(-1)  # a batch that was made flat
    return mx.array(new).astype(old.dtype) if isinstance(old, mx.array) else new.astype(old.dtype)
