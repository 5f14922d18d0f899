"""The script's own validation and decoding, called again with the ladder's models, batches and prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from mlxstories.ladder.bench.arrays import first_of
from mlxstories.ladder.capture.copies import alike, bound, clone, host, whole
from mlxstories.ladder.capture.model_uses import Called, Use
from mlxstories.ladder.modes import modes, put_modes
from mlxstories.ladder.patches import Patches, rerouted
from mlxstories.ladder.random_states import undisturbed
from mlxstories.ladder.time_limit import TimeLimitError

if TYPE_CHECKING:
    from mlxstories.ladder.capture.script import CapturedScript

_PASSES = 40  # of one validation, at most
_TOKENS = 4  # that a decoding must tell of prompts as long
_PROMPTS = 3  # of which two must be answered differently
_HELD_OUT = ("val", "valid", "validation", "eval", "test", "dev")


class Enough(BaseException):
    """Raised in the model's call once a decoding has shown what was asked for."""


@contextmanager
def standing_in(own: nn.Module, model: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Inside, calls of the script's own module go through ``call(model, ids, *args)`` instead, in its present mode."""

    def instead(_, ids, *args, **kwargs):
        if isinstance(model, nn.Module) and model.training != own.training:
            model.train(own.training)
        return call(model, ids, *args, **kwargs)

    with rerouted(own, instead):
        yield


@contextmanager
def replaying(script: CapturedScript, use: Use, model: Any) -> Iterator[None]:
    """Inside, the script's world, in which its own module has the parameters of ``model`` and the mode of the use."""
    kept = modes(model) if isinstance(model, nn.Module) else []
    with undisturbed(), script.inside(), bound(use.model, model):
        use.model.train(use.training)
        try:
            yield
        finally:
            put_modes(kept)


class Validation:
    """A function of the script's that runs its model over several batches and returns a loss."""

    def __init__(self, script: CapturedScript, use: Use, called: Called):
        self.script, self.use, self.called = script, use, called

    def __call__(self, model: nn.Module, batches: Sequence[Any]) -> dict[str, float]:
        """Its loss on the ladder's batches; each stands once at every place of its loop, whatever its length. Nothing
        where it fails on them: it was not written for them, so that is no mistake."""
        parts = [tuple(host(part) for part in batch)[:2] for batch in batches]
        try:
            told = [self._told(model, parts, turn) for turn in range(len(parts))]
        except Exception as error:
            if isinstance(error, TimeLimitError) or not alike(self.use.model, model):
                raise
            return {}
        return {"loss": float(np.mean(told))} if told else {}

    def _told(self, model: nn.Module, batches: list, turn: int) -> float:
        own, passes = self.use.model, 0

        def fed(model, ids, *args, **kwargs):
            nonlocal passes
            if passes >= _PASSES:
                raise Enough
            inputs, targets = batches[(passes + turn) % len(batches)]
            shown.append(mx.array(targets))
            passes += 1

            def instead(value):
                same = whole(value) and getattr(value, "shape", None) == ids.shape
                return mx.array(targets).astype(value.dtype) if same else value

            kwargs = {name: instead(value) for name, value in kwargs.items()}
            return model(mx.array(inputs).astype(ids.dtype), *map(instead, args), **kwargs)

        shown: list[mx.array] = []
        cross_entropy = nn.losses.cross_entropy

        def of_shown(logits, targets, *args, **kwargs):
            if shown and shown[-1].size == logits.size // logits.shape[-1]:
                targets = shown[-1].reshape(logits.shape[:-1])
            return cross_entropy(logits, targets, *args, **kwargs)

        with replaying(self.script, self.use, model), standing_in(own, model, fed), Patches() as patches:
            patches.replace(nn.losses, "cross_entropy", of_shown)
            value = _loss_of(self.called.run())
        if value is None or passes < 2:
            raise ValueError("tells no loss of several batches")
        return value


class Decoding:
    """A function of the script's that extends a prompt; where it samples, it is made to take the likeliest token."""

    def __init__(self, script: CapturedScript, use: Use, called: Called):
        self.script, self.use, self.called = script, use, called

    def __call__(self, model: nn.Module, prompt: list[int], n: int) -> list[int]:
        """The first ``n`` tokens that it appends, as the model is shown them afterwards."""
        told: list[int] = []
        called = self.called.with_(lambda value: _prompted(value, self.use.ids, prompt))
        first = True

        def watched(model, ids, *args, **kwargs):
            nonlocal first
            if not first:
                told.append(int(host(ids).reshape(-1)[-1] if ids.ndim == 1 else host(ids)[0, -1]))
            first = False
            if len(told) >= n:
                raise Enough
            return model(ids, *args, **kwargs)

        inside = replaying(self.script, self.use, model), standing_in(self.use.model, model, watched)
        with inside[0], inside[1], greedy(), suppress(Enough):
            called.run()
        return told


@contextmanager
def greedy() -> Iterator[None]:
    """Inside, `mx.random.categorical` draws the likeliest."""

    def likeliest(logits, axis=-1, shape=None, num_samples=None, **_):
        best = mx.argmax(logits, axis=axis)
        if num_samples is not None:
            return mx.repeat(best[..., None], num_samples, axis=-1)
        return best if shape is None else mx.broadcast_to(best, shape)

    with Patches() as patches:
        patches.replace(mx.random, "categorical", likeliest)
        yield


def _prompted(value: Any, before: Any, prompt: list[int]) -> Any:
    """An argument with the ladder's prompt instead of the script's; rows beside the first get the same."""
    old = host(before)
    row = old[0] if old.ndim == 2 else old
    if isinstance(value, (mx.array, np.ndarray)) and value.shape == old.shape and (host(value) == old).all():
        new = np.broadcast_to(np.array(prompt), (*old.shape[:-1], len(prompt)))
        return mx.array(new).astype(value.dtype) if isinstance(value, mx.array) else new.astype(value.dtype)
    if isinstance(value, list) and value == row.tolist():
        return list(prompt)
    return value


def _loss_of(value: Any) -> float | None:
    """The loss in what a validation returns; of several, that of held-out data."""
    if isinstance(value, dict):
        named = {str(name).lower(): item for name, item in value.items()}
        held = [item for name, item in named.items() if any(word in name for word in _HELD_OUT)]
        value = held[0] if held else named.get("loss", next(iter(named.values()), None))
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if isinstance(value, mx.array):
        value = value.item() if value.size == 1 else None
    return float(value) if isinstance(value, (int, float, np.floating)) else None


def validation_of(script: CapturedScript) -> Validation | None:
    """The script's validation, if one of its functions can be called again on the ladder's batches."""
    if script.roles.masked:  # whose mask is its own, and cannot be given another
        return None
    for use, called in _beside(script):
        found = Validation(script, use, called)
        if _tried(_tells_a_loss, found):
            return found
    return None


def _tells_a_loss(validation: Validation) -> bool:
    """Whether it follows the batches that it is given, and what it returns is meant to be their loss."""
    script, line = validation.script, validation.called.line
    rng, model = np.random.default_rng(0), _noisy(script.loop.snapshot)
    rows, length = min(4, len(script.batches[0][0])), script.batches[0][0].shape[1]
    batches = [tuple(rng.integers(0, script.roles.first.vocab, (2, rows, length))) for _ in range(3)]
    told = [validation(model, batches)["loss"] for _ in range(2)]
    other = validation(model, batches[:1])["loss"]
    if not np.isfinite(told).all() or told[0] == other:
        return False
    model.eval()
    nats = [nn.losses.cross_entropy(_logits(model, x), mx.array(y)).mean().item() for x, y in batches]
    return "loss" in line.function or abs(told[0] - np.mean(nats)) < 1e-2 * abs(np.mean(nats))


def decoding_of(script: CapturedScript) -> Decoding | None:
    """The script's decoding, if one of its functions can be called again on the ladder's prompts."""
    for use, called in _beside(script):
        found = Decoding(script, use, called)
        if _tried(_tells_first_choices, found):
            return found
    return None


def _tells_first_choices(decoding: Decoding) -> bool:
    """Whether it continues the prompts that it is given by the likeliest token at one position or another. False where
    penalties and the like have a say, which are no mistake, and where it says the same whatever it is given."""
    script = decoding.script
    rng, model = np.random.default_rng(1), _noisy(script.loop.snapshot)
    ranks, choices = [], set()
    for _ in range(_PROMPTS):
        prompt = rng.integers(0, script.roles.first.vocab, _TOKENS).tolist()
        told, again = (decoding(model, prompt, _TOKENS) for _ in range(2))
        if len(told) < _TOKENS or told != again:
            return False
        choices.add(tuple(told))
        model.eval()
        for index, token in enumerate(told):
            best = np.array(mx.argmax(_logits(model, [prompt + told[:index]])[0], axis=-1))
            ranks.append([best[0] == token, best[-2] == token, best[-1] == token])
    return len(choices) > 1 and bool(np.array(ranks).all(0).any())


def _beside(script: CapturedScript) -> Iterator[tuple[Use, Called]]:
    seen = script.loop.seen
    for use in (use for use in seen.uses.values() if use.model is script.loop.model):
        for called in use.beside(seen.gradient):
            yield use, called


def _tried(attempt: Callable[[Any], bool], found: Validation | Decoding) -> bool:
    try:
        return attempt(found)
    except TimeLimitError:
        raise
    except (Exception, Enough):  # it wants something else than it is given
        return False


def _noisy(snapshot: nn.Module) -> nn.Module:
    """A copy with weights whose choices vary."""
    model = clone(snapshot)
    with undisturbed():
        mx.random.seed(0)
        model.update(tree_map(_with_noise, model.parameters()))
    return model


def _with_noise(parameter: mx.array) -> mx.array:
    if not mx.issubdtype(parameter.dtype, mx.floating):
        return parameter
    noise = mx.random.normal(parameter.shape) * 0.5 * mx.std(parameter.astype(mx.float32))
    return parameter + noise.astype(parameter.dtype)


def _logits(model: nn.Module, ids: Any) -> mx.array:
    out = model(mx.array(ids))
    return first_of(out).astype(mx.float32)
