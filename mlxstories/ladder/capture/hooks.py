"""MLX's functions as a watched script finds them: gradients, updates, losses and saves are reported to a listener."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer

from mlxstories.ladder.capture.copies import module_of, scalar
from mlxstories.ladder.capture.files import Overlay
from mlxstories.ladder.patches import Patches, around_updates
from mlxstories.ladder.where.places import Line, stack
from mlxstories.training.trainer import Trainer

_SAVING = ("save", "savez", "savez_compressed", "save_safetensors", "save_gguf")

# In bytes, of a GPU; scripts ask for them to set their limits.
_SIZES = ("memory_size", "max_recommended_working_set_size", "max_buffer_length")


@dataclass
class GradientCall:
    """One call of a function that `value_and_grad` made.

    Attributes:
        model: the module whose gradient it is, or None where none was found.
        function, args, kwargs: the loss as the script wrote it, and what it is called with.
        differentiate: function -> the function that gives its value and gradient, or its gradient alone.
        valued: whether it gives the value.
    """

    model: nn.Module | None
    function: Callable
    args: tuple
    kwargs: dict
    differentiate: Callable[[Callable], Callable]
    valued: bool = True

    def run(self) -> Any:
        """The call as if nobody were watching."""
        return self.differentiate(self.function)(*self.args, **self.kwargs)

    def loss_of(self, result: Any) -> mx.array:
        """The loss in what `run` returned; computed again where it is not there."""
        return scalar(result[0] if self.valued else self.function(*self.args, **self.kwargs))

    def gradient_of(self, result: Any) -> Any:
        """The gradient in what `run` returned."""
        return result[1] if self.valued else result


@dataclass
class Listed:
    """What a function that was compiled lists as its inputs and outputs, and where."""

    inputs: Any
    outputs: Any
    line: Line | None

    def holds(self, where: str, *wanted: Any) -> bool:
        """Whether the ``inputs`` or ``outputs`` hold one of these very objects."""
        waiting, wanted_ids = [getattr(self, where)], {id(value) for value in wanted}
        while waiting:
            value = waiting.pop()
            if id(value) in wanted_ids:
                return True
            if type(value) is dict:
                waiting += list(value.values())
            elif isinstance(value, (list, tuple)):
                waiting += list(value)
        return False


class Listener(Protocol):
    """What the hooks report to; ``listening`` is off while our own code runs."""

    @property
    def listening(self) -> bool: ...
    def on_gradient(self, call: GradientCall) -> Any: ...
    def on_update(self, optimizer: Optimizer, apply: Callable, gradients: Any, nothing: Any) -> Any: ...
    def on_assignment(self, model: nn.Module, assign: Callable[[], Any]) -> Any: ...
    def on_made(self, value: Optimizer | nn.Module, frame: FrameType) -> None: ...
    def on_loss(self, logits: Any, targets: Any, weights: Any, frame: FrameType) -> None: ...
    def on_saved(self, values: Any, frame: FrameType) -> None: ...
    def on_loaded(self) -> None: ...
    def on_compiled(self, listed: Listed, run: Callable[[], Any]) -> Any: ...
    def on_trainer(self, trainer: Trainer) -> None: ...
    def on_note(self, text: str) -> None: ...


def install(patches: Patches, listener: Listener, files: Overlay) -> None:
    """Have MLX tell the listener and save among the ``files``, for as long as the patches are in place."""
    _gradients(patches, listener)
    _updates(patches, listener)
    _losses(patches, listener)
    _compile(patches, listener)
    _saving(patches, listener, files)
    _devices(patches, listener)
    _trainers(patches, listener)


def _gradients(patches: Patches, listener: Listener) -> None:
    of_module, value_and_grad, grad = nn.value_and_grad, mx.value_and_grad, mx.grad

    def module_gradient(model, fn):
        def call(*args, **kwargs):
            watched = GradientCall(model, fn, args, kwargs, lambda f: of_module(model, f))
            return listener.on_gradient(watched) if listener.listening else watched.run()

        return call

    def array_gradient(real, valued):
        def transform(fun, *options, **named):
            if not listener.listening:
                return real(fun, *options, **named)

            def call(*args, **kwargs):
                model = module_of(fun, args)
                watched = GradientCall(model, fun, args, kwargs, lambda f: real(f, *options, **named), valued)
                return listener.on_gradient(watched) if listener.listening else watched.run()

            return call

        return transform

    patches.replace(nn, "value_and_grad", module_gradient)
    patches.replace(nn.utils, "value_and_grad", module_gradient)
    patches.replace(mx, "value_and_grad", array_gradient(value_and_grad, True))
    patches.replace(mx, "grad", array_gradient(grad, False))


def _updates(patches: Patches, listener: Listener) -> None:
    assign, make, make_module = nn.Module.update, Optimizer.__init__, nn.Module.__init__

    def update(optimizer, model, gradients):
        if not listener.listening:
            return model.update(optimizer.apply_gradients(gradients, model))
        return listener.on_update(
            optimizer, lambda o, g: model.update(o.apply_gradients(g, model)), gradients, None
        )

    def applying(real):
        def apply(optimizer, gradients, parameters):
            if not listener.listening:
                return real(optimizer, gradients, parameters)
            return listener.on_update(
                optimizer, lambda o, g: o.apply_gradients(g, parameters), gradients, parameters
            )

        return apply

    def assigned(model, *args, **kwargs):
        if not listener.listening:
            return assign(model, *args, **kwargs)
        return listener.on_assignment(model, lambda: assign(model, *args, **kwargs))

    def made(optimizer, *args, **kwargs):
        make(optimizer, *args, **kwargs)
        if listener.listening:
            listener.on_made(optimizer, sys._getframe(1))

    def module_made(module):
        make_module(module)
        if listener.listening:
            listener.on_made(module, sys._getframe(1))

    patches.replace(Optimizer, "update", update)
    around_updates(patches, applying)
    patches.replace(Optimizer, "__init__", made)
    patches.replace(nn.Module, "__init__", module_made)
    patches.replace(nn.Module, "update", assigned)


def _losses(patches: Patches, listener: Listener) -> None:
    cross_entropy = nn.losses.cross_entropy

    def told(logits, targets, weights=None, *args, **kwargs):
        if listener.listening:  # not inside of gradients
            listener.on_loss(logits, targets, weights, sys._getframe(1))
        return cross_entropy(logits, targets, weights, *args, **kwargs)

    patches.replace(nn.losses, "cross_entropy", told)


def _compile(patches: Patches, listener: Listener) -> None:
    compile_ = mx.compile

    def eager(fun, inputs=None, outputs=None, shapeless=False):
        if not listener.listening:
            return compile_(fun, inputs, outputs, shapeless)
        listed = Listed(inputs, outputs, next(iter(stack(sys._getframe(1))[-1:]), None))

        def call(*args, **kwargs):  # inside a compiled function neither batches nor gradients could be seen
            return listener.on_compiled(listed, lambda: fun(*args, **kwargs))

        return call

    patches.replace(mx, "compile", eager)


def _saving(patches: Patches, listener: Listener, files: Overlay) -> None:
    load = nn.Module.load_weights

    def kept(name, real):
        def save(*args, **kwargs):
            listener.on_saved([args, kwargs], sys._getframe(1))
            if name not in _SAVING or not files.save(real, args, kwargs):
                listener.on_note(f"mx.{name} was held back")

        return save

    def load_weights(model, *args, **kwargs):
        if listener.listening:
            listener.on_loaded()
        return load(model, *args, **kwargs)

    for name in (*_SAVING, "export_function"):
        if hasattr(mx, name):
            patches.replace(mx, name, kept(name, getattr(mx, name)))
    patches.replace(nn.Module, "load_weights", load_weights)


def _devices(patches: Patches, listener: Listener) -> None:
    set_device, stream = mx.set_default_device, mx.default_stream

    def set_default_device(device):
        try:
            set_device(device)
        except (ValueError, RuntimeError):
            listener.on_note("there is no GPU here: the script runs on the CPU")

    def default_stream(device=mx.cpu):
        try:
            return stream(device)
        except (ValueError, RuntimeError):
            return stream(mx.cpu)

    def with_memory(device_info):
        def info(*args, **kwargs):
            size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            return dict.fromkeys(_SIZES, size) | device_info(*args, **kwargs)

        return info

    for owner in (mx, mx.metal):
        if hasattr(owner, "device_info"):
            patches.replace(owner, "device_info", with_memory(owner.device_info))
    patches.replace(mx, "set_default_device", set_default_device)
    patches.replace(mx, "default_stream", default_stream)


def _trainers(patches: Patches, listener: Listener) -> None:
    make = Trainer.__post_init__

    def made(trainer):
        make(trainer)
        if listener.listening:
            listener.on_trainer(trainer)

    patches.replace(Trainer, "__post_init__", made)
