"""Gradients by parameter over several steps: dead, detached, vanishing, exploding; and frozen parameters."""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_flatten

from mlxstories.findings import ERROR, NOTE, WARNING
from mlxstories.ladder.examination import Examination, masked_mean

_STEPS = 6
_VANISHING = 1e-5  # of the strongest block's gradient norm
_TOTAL = 1e-7  # gradient norm of everything
_EXPLODING = 1e3


def examine(exam: Examination, probe) -> None:
    """Train a few steps by our own means, so that only model and initialisation are judged."""
    model = exam.model()
    names = [name for name, _ in tree_flatten(model.trainable_parameters())]
    if not names:
        exam.check("gradients", None, "no trainable parameters")
        _frozen(exam, model)
        if not exam.has("frozen-parameters"):
            exam.found(
                "no-update",
                ERROR,
                "the model has no trainable parameters",
                fix="unfreeze the model, and keep arrays in attributes whose names do not begin with an underscore",
                where="model",
            )
        return
    first, last, largest, alive = _follow(exam, model, probe)
    finite = all(np.isfinite(v) for v in (*first.values(), *last.values()))
    exam.check("gradients finite", finite)
    if not finite:
        bad = next(
            n for n in names if not np.isfinite(first.get(n, 0.0)) or not np.isfinite(last.get(n, 0.0))
        )
        exam.found(
            "not-finite",
            ERROR,
            f"the gradient of {bad} is not finite although the loss is",
            fix="look for sqrt or norm at 0, a division by a sum that can be 0, or 0 * inf under a mask",
            where=bad,
        )
        return
    exam.rung.figures["gradients"] = {n: {"first": first[n], "later": last[n]} for n in names if n in first}
    if exam.has("vanishing-gradient"):
        return
    _constant(exam, model)
    _dead(exam, names, largest, alive, probe)
    _scale(exam, first, last)
    _frozen(exam, exam.model())


def _follow(exam: Examination, model: nn.Module, probe):
    optimizer = AdamW(2e-3, bias_correction=True, weight_decay=0.0)
    model.train()
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    largest: dict[str, float] = {}
    alive: dict[str, np.ndarray] = {}
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for step in range(_STEPS):
        rows = np.arange(step, step + probe.shape[0]) % exam.sample.shape[0]
        batch = exam.sample.rows(rows)
        device = batch.device()
        exam.seed_all(exam.seed + step)
        with exam.calling("the gradient of model(tokens)"):
            _, tree = nn.value_and_grad(model, lambda m, d=device: masked_mean(m, d))(model)
            flat = {n: g.astype(mx.float32) for n, g in tree_flatten(tree) if isinstance(g, mx.array)}
            norms = {n: mx.linalg.norm(g) for n, g in flat.items()}
            units = {n: mx.abs(flat[n]).max(-1) > 0 for n in flat if n in linear}
            optimizer.update(model, tree)
            mx.eval(model.parameters(), optimizer.state, norms, units)
        last = {n: float(v) for n, v in norms.items()}
        first = first or last
        for name, value in last.items():
            largest[name] = max(largest.get(name, 0.0), value)
        for name, on in units.items():
            alive[name] = alive.get(name, False) | np.array(on)
        if not all(np.isfinite(v) for v in last.values()):
            break
    return first, last, largest, alive


def _constant(exam: Examination, model: nn.Module) -> None:
    """Matrices all of whose entries are one number: every unit computes and learns the same."""
    fresh = exam.model()
    flat = [(n, a) for n, a in tree_flatten(fresh.trainable_parameters()) if a.ndim >= 2 and min(a.shape) > 1]
    same = [n for n, a in flat if float(a.astype(mx.float32).max() - a.astype(mx.float32).min()) == 0]
    zero = [n for n in same if float(mx.abs(dict(flat)[n]).max()) == 0]
    stuck = [n for n in same if n not in zero]
    exam.facts["zero_matrices"] = zero
    if stuck:
        exam.found(
            "bad-initialization",
            ERROR,
            f"{len(stuck)} weight matrices start with all entries equal ({stuck[0]}): their units stay copies of one",
            fix="initialise matrices at random, with a standard deviation near 0.02 or 1/sqrt(fan in)",
            where=stuck[0],
            matrices=len(stuck),
        )


def _dead(exam: Examination, names, largest, alive, probe) -> None:
    model = exam.model()
    sizes = {n: a.size for n, a in tree_flatten(model.trainable_parameters())}
    shapes = {n: a.shape for n, a in tree_flatten(model.trainable_parameters())}
    dead = [n for n in names if largest.get(n, 0.0) == 0.0 and sizes[n]]
    part = {n: 1 - float(on.mean()) for n, on in alive.items() if n not in dead and on.size >= 8}
    part = {n: share for n, share in part.items() if share >= 0.5 and shapes[n][0] != exam.subject.vocab_size}
    exam.check(
        "gradients alive", not dead and not part, f"{len(names) - len(dead)} of {len(names)} parameters"
    )
    if dead:
        noisy = exam.noisy(7)
        awake = exam.gradients(noisy, probe)
        asleep = [n for n in dead if n in awake and float(mx.abs(awake[n]).max()) > 0]
        share = sum(sizes[n] for n in dead) / sum(sizes.values())
        if asleep and len(asleep) >= 0.5 * len(dead):
            zero = exam.facts.get("zero_matrices", [])
            exam.found(
                "bad-initialization",
                ERROR,
                f"{len(dead)} of {len(names)} parameters ({dead[0]}, ...) have a gradient of exactly 0 for {_STEPS} "
                "steps, yet a little noise on the weights wakes them: initial values cancel each other"
                + (f" ({len(zero)} matrices start at 0)" if zero else ""),
                fix="start at most one of two factors at zero, the other at random",
                where=dead[0],
                dead=len(dead),
                parameters=len(names),
                share_of_weights=share,
            )
            return
        heavy = share >= 0.01 or any(len(shapes[n]) >= 2 for n in dead)
        exam.found(
            "dead-parameters",
            ERROR if heavy else WARNING,
            f"{len(dead)} of {len(names)} trainable parameters, {share:.1%} of the weights, never receive a "
            f"gradient: {', '.join(dead[:3])}" + (" ..." if len(dead) > 3 else ""),
            fix="look for stop_gradient, an output that is not used, argmax or rounding on the way, or units that "
            "never fire",
            where=dead[0],
            dead=len(dead),
            parameters=len(names),
            share_of_weights=share,
        )
    elif part:
        worst = max(part, key=part.get)
        exam.found(
            "dead-parameters",
            ERROR if part[worst] >= 0.9 else WARNING,
            f"{part[worst]:.0%} of the units of {worst} never receive a gradient",
            fix="their activation never fires: lower the bias or the learning rate, or use GELU or SiLU",
            where=worst,
            dead_units=part[worst],
        )


def depth_groups(names) -> dict[str, list[str]]:
    """Parameter paths by block (``layers.0``, ``layers.1`` ...) or, outside of blocks, by module."""
    groups: dict[str, list[str]] = {}
    for name in names:
        block = re.match(r"(.*?\.\d+)(\.|$)", name)
        groups.setdefault(block[1] if block else name.rpartition(".")[0] or name, []).append(name)
    return groups


def _scale(exam: Examination, first: dict[str, float], last: dict[str, float]) -> None:
    total = float(np.sqrt(sum(v * v for v in first.values())))
    groups = {
        g: float(np.sqrt(sum(max(first[n], last[n]) ** 2 for n in members)))
        for g, members in depth_groups(last).items()
    }
    blocks = {g: v for g, v in groups.items() if re.search(r"\.\d+$", g)} or groups
    strongest = max(groups.values())
    weak = {g: v for g, v in groups.items() if 0 < v < _VANISHING * strongest and _matters(exam, g)}
    exam.rung.figures["blocks"] = groups
    exam.facts["gradient_norm"] = total
    vanishing = bool(weak) or 0 < max(total, strongest) < _TOTAL
    exploding = total > _EXPLODING
    exam.check("gradient sizes", not vanishing and not exploding, f"norm {total:.2g}")
    if vanishing:
        where = min(weak, key=weak.get) if weak else next(iter(blocks))
        exam.found(
            "vanishing-gradient",
            ERROR,
            f"the gradient of {where} is {groups[where]:.1e}, {groups[where] / strongest:.0e} of the strongest part's",
            fix="add residual connections or normalisation, replace saturating activations, and check the scale of "
            "the initial weights",
            where=where,
            gradient_norms=groups,
        )
    if exploding:
        where = max(groups, key=groups.get)
        exam.found(
            "exploding-gradient",
            ERROR,
            f"the untrained model's gradient norm is {total:.2g}, most of it in {where}; healthy ones are near 1",
            fix="normalise before each block and initialise with a standard deviation near 0.02 or 1/sqrt(fan in)",
            where=where,
            gradient_norm=total,
            gradient_norms=groups,
        )


def _matters(exam: Examination, group: str) -> bool:
    """Groups without a matrix (a lone norm or bias) may well have tiny gradients."""
    model = exam.facts.setdefault("shapes", {n: a.shape for n, a in tree_flatten(exam.model().parameters())})
    return any(len(shape) >= 2 for name, shape in model.items() if name.startswith(group))


def _frozen(exam: Examination, model: nn.Module) -> None:
    """Parameters that are not trainable although they start at random values, which no training will improve."""
    trainable = {n for n, _ in tree_flatten(model.trainable_parameters())}
    everything = dict(tree_flatten(model.parameters()))
    other = dict(tree_flatten(exam.model(exam.seed + 101).parameters()))
    frozen = [
        n
        for n, a in everything.items()
        if n not in trainable and mx.issubdtype(a.dtype, mx.floating) and a.size
    ]
    if exam.facts.get("shared_model"):
        drawn = frozen
    else:
        drawn = [n for n in frozen if n in other and not bool(mx.array_equal(everything[n], other[n]))]
    hidden, again = _hidden(model), _hidden(exam.model(exam.seed + 101))
    hidden = {n: a for n, a in hidden.items() if n in again and not bool(mx.array_equal(a, again[n]))}
    everything |= hidden
    drawn += list(hidden)
    share = sum(everything[n].size for n in drawn) / max(1, sum(a.size for a in everything.values()))
    exam.check("nothing frozen at random values", not drawn, f"{len(frozen)} frozen")
    if drawn:
        exam.found(
            "frozen-parameters",
            ERROR,
            f"{len(drawn)} parameters, {share:.1%} of the weights, are frozen at their random initial values: "
            f"{', '.join(drawn[:3])}" + (" ..." if len(drawn) > 3 else ""),
            fix="rename the attribute so that it does not begin with an underscore: MLX leaves those out of the "
            "parameters"
            if hidden
            else "call unfreeze() on the modules that are to learn",
            where=drawn[0],
            frozen=len(drawn),
            share_of_weights=share,
        )
    elif frozen:
        exam.found(
            "frozen-parameters",
            NOTE,
            f"{len(frozen)} parameters are not trained, the same in every fresh model: {', '.join(frozen[:3])}",
            fix="nothing to do if these are tables or pretrained weights",
            where=frozen[0],
            frozen=len(frozen),
        )


def _hidden(value, path: str = "", private: bool = False) -> dict[str, mx.array]:
    """Floating arrays below attributes that begin with an underscore, by path."""
    if isinstance(value, mx.array):
        return {path: value} if private and value.size > 1 and mx.issubdtype(value.dtype, mx.floating) else {}
    if isinstance(value, dict):
        items = list(value.items())
        if isinstance(value, nn.Module):
            # Plain attributes too: an optimiser never sees what is not in the dictionary.
            items += [(k, v) for k, v in vars(value).items() if isinstance(v, (nn.Module, list, tuple))]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        return {}
    found: dict[str, mx.array] = {}
    for key, item in items:
        name = f"{path}.{key}" if path else str(key)
        found |= _hidden(item, name, private or str(key).startswith("_"))
    return found
