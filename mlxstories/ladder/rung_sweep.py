"""Rung 4: learning rates around the subject's own, and why memorising failed where it did."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlxstories.findings import ERROR, WARNING
from mlxstories.ladder.bench.material import epoch_steps
from mlxstories.ladder.bench.optimizers import read_schedule
from mlxstories.ladder.examination import Examination, Run, put
from mlxstories.ladder.rung_minimal import memorised, row_entropy, row_share, start_loss
from mlxstories.ladder.updates import Clip

_USUAL = (0.01, 0.3, 3.0)
_CRAWL = 0.12  # of the first loss: a rate that takes away less in the whole minimal rung is too small
_WIDE = (0.01, 0.1, 10.0, 100.0, 1000.0)
_SMALL = (1e-4, 1e-3, 0.01, 0.1)
_EXPLODED = 4.0  # times the first loss, at any time


def climb(exam: Examination) -> None:
    """Run the minimal batch at other rates; where memorising failed, name what stands in the way."""
    if "minimal" not in exam.facts:
        exam.check("learning rates", None, "the minimal rung did not run")
        return
    if exam.has():
        exam.check("learning rates", None, f"{exam.cause} comes first")
        return
    minimal: Run = exam.facts["minimal"]
    failed = not exam.facts["memorised"]
    steps = min(20, len(minimal.losses)) if not failed else min(30, max(20, len(minimal.losses)))
    start = start_loss(exam)
    worst = max((loss for _, loss, _ in minimal.points), default=start)
    exploded = not minimal.finite or worst > _EXPLODED * start
    scales = _USUAL if not failed else _SMALL if exploded else _WIDE
    runs = {1.0: _try(exam, 1.0, steps)}
    for scale in scales:
        runs[scale] = _try(exam, scale, steps)

    def gain(scale: float) -> float:
        loss = runs[scale][0]
        return start - loss if np.isfinite(loss) else -np.inf

    if not np.isfinite(gain(max(runs, key=gain))):  # all too large: look further down
        for scale in (1e-3, 1e-4, 1e-5):
            runs[scale] = _try(exam, scale, steps)
    best = max(runs, key=gain)
    while failed and best in (max(runs), min(runs)) and 1e-5 < best < 1e5:  # the best lies further out
        beyond = best * 10 if best > 1 else best / 10
        runs[beyond] = _try(exam, beyond, steps)
        if gain(beyond) <= gain(best):
            break
        best = beyond
    gains = {scale: gain(scale) for scale in runs}
    peak = exam.schedule.peak or None
    exam.rung.figures["sweep"] = [
        {
            "scale": s,
            "rate": peak * s if peak else None,
            "loss": runs[s][0],
            "accuracy": runs[s][1],
            "steps": steps,
        }
        for s in sorted(runs)
    ]
    exam.facts |= {"sweep": runs, "sweep_steps": steps}
    rate = f"{peak:g}" if peak else "its own"
    exam.check(
        "learning rates",
        not failed,
        f"best at {best:g} times {rate}: {runs[best][1]:.1%} in {steps} steps, at 1: {runs[1.0][1]:.1%}",
    )
    if failed:
        _explain(exam, runs, gains, best, steps)
    else:
        _warmup(exam)
        _clip(exam, failed=False)


def _try(exam: Examination, scale: float, steps: int) -> tuple[float, float]:
    run = exam.run([exam.minimal], steps, scale=scale, measure=exam.minimal, at=(steps,))
    return run.points[-1][1:] if run.points and run.finite else (float("nan"), 0.0)


def _explain(exam: Examination, runs, gains, best: float, steps: int) -> None:
    start, own = start_loss(exam), gains[1.0]
    top = gains[best]
    peak = exam.schedule.peak
    bound = row_entropy(exam)
    evidence = {
        "learning_rate": peak,
        "steps": steps,
        "loss_by_scale": {f"{s:g}": loss for s, (loss, _) in sorted(runs.items())},
        "accuracy_by_scale": {f"{s:g}": accuracy for s, (_, accuracy) in sorted(runs.items())},
        "start_loss": start,
        "unigram_loss_of_these_rows": bound,
    }
    minimal: Run = exam.facts["minimal"]
    own_long = start - minimal.points[-1][1] if minimal.points and minimal.finite else -np.inf
    crawls = own_long < _CRAWL * start
    helps = top > 0.12 * start and top > max(2.0 * own, own + 0.1 * start)
    if _decayed(exam, evidence):
        return
    if _clip(exam, failed=True, own=own, **evidence):
        return
    # A rate that teaches word frequencies alone is no cure.
    cures = runs[best][0] < bound - 0.05 * start
    if helps and best > 1 and not cures:  # perhaps it is only slow, and a little too bold
        steps, best = len(minimal.losses), best / 3
        runs[1.0], runs[best] = minimal.points[-1][1:], _try(exam, best, steps)
        loss, accuracy = runs[best]
        cures = loss < bound - 0.2 * start or accuracy > row_share(exam) + 0.3
        evidence |= {"steps": steps, "loss_of_longer_run": loss, "accuracy_of_longer_run": accuracy}
    if helps and best > 1 and cures:
        words = _words(peak, best, runs, steps)
        exam.found(
            "learning-rate-too-small",
            ERROR if crawls else WARNING,
            f"{words['now']} is about {best:.0f} times too small: at {words['then']} the same {steps} steps reach "
            f"{words['reach']} instead of {words['have']}",
            fix=f"raise the learning rate to about {words['then']}",
            where="optimizer",
            **evidence,
        )
    elif helps and best < 1:
        if _uncorrected(exam, evidence):
            return
        words = _words(peak, best, runs, steps)
        exam.found(
            "learning-rate-too-large",
            ERROR,
            f"{words['now']} is about {1 / best:.0f} times too large: at {words['then']} the same {steps} steps reach "
            f"{words['reach']} instead of {words['have']}",
            fix=f"lower the learning rate to about {words['then']}",
            where="optimizer",
            **evidence,
        )
    elif not np.isfinite(runs[1.0][0]):
        exam.found(
            "not-finite",
            ERROR,
            f"training turns not finite within {steps} steps, at smaller learning rates too",
            fix="look for a log of 0, a division by 0 or a float16 overflow in the backward pass",
            where="train_step",
            **evidence,
        )
    else:
        losses = [loss for loss, _ in runs.values() if np.isfinite(loss)]
        losses += [loss for _, loss, _ in minimal.points[-1:]]
        half = [loss for step, loss, _ in minimal.points if step <= len(minimal.losses) / 2]
        stalled = bool(half) and half[-1] - minimal.points[-1][1] < 0.02 * start
        slow = min(losses) < bound - 0.1 and not stalled
        accuracy = max(minimal.points[-1][2], runs[best][1])
        exam.found(
            "cannot-overfit",
            WARNING if slow else ERROR,
            f"{exam.minimal.shape[0]} rows cannot be memorised: the best of {len(runs)} learning rates leaves "
            f"{min(losses):.2f} of {start:.2f} nats and gets {accuracy:.1%} of the tokens right"
            + (
                ", though the loss keeps falling"
                if slow
                else f"; their word frequencies alone leave {bound:.2f}"
            ),
            fix="look for what keeps the model from fitting: targets that do not follow from the inputs, heavy "
            "dropout, a part cut off from the gradient, too little capacity",
            where="model",
            **evidence,
        )


def _words(peak, best, runs, steps) -> dict[str, str]:
    reach, have = runs[best], runs[1.0]
    close = abs(reach[1] - have[1]) < 0.05
    return {
        "now": f"learning rate {peak:g}" if peak else "the step's size",
        "then": f"{peak * best:.2g}" if peak else f"{best:g} times the step",
        "reach": f"{reach[0]:.2f} nats" if close else f"{reach[1]:.0%}",
        "have": f"{have[0]:.2f} nats" if close else f"{have[1]:.0%}",
    }


def _clip(exam: Examination, *, failed: bool, own: float = 0.0, **evidence) -> bool:
    clip: Clip | None = exam.facts.get("clip")
    tight = clip is not None and clip.share < 0.2
    detail = "" if clip is None else f"{clip.share:.1%}"
    exam.check("clipping", None if clip is None else not (tight and failed), detail)
    if not tight or (not failed and clip.share > 0.02):
        return False
    if failed:  # Adam hardly minds a clip: let the gradients through at a norm of 1 and see
        steps = evidence["steps"]
        run = exam.run([exam.minimal], steps, measure=exam.minimal, at=(steps,), receive=_of_unit_norm)
        loss = run.points[-1][1] if run.points and run.finite else np.inf
        start = evidence["start_loss"]
        if start - loss < max(0.12 * start, 2 * own):
            return False
        evidence["loss_at_a_norm_of_1"] = loss
    exam.found(
        "clipping-too-tight",
        ERROR if failed else WARNING,
        f"every gradient is clipped to {'a norm' if clip.kind == 'norm' else 'entries'} of {clip.limit:.2g}, "
        f"{clip.share:.1%} of its length",
        fix="clip at a norm of about 1, above the usual gradient norm "
        f"({clip.limit / max(clip.share, 1e-30):.2g} here)"
        if clip.kind == "norm"
        else "clip by global norm, at about 1",
        where="train_step",
        limit=clip.limit,
        share_left=clip.share,
        **evidence,
    )
    return True


def _of_unit_norm(gradients):
    squares = sum(g.astype(mx.float32).square().sum() for _, g in tree_flatten(gradients))
    scale = mx.rsqrt(mx.maximum(squares, 1e-30))
    return tree_map(lambda g: (g * scale).astype(g.dtype), gradients)


def _warmup(exam: Examination) -> None:
    """A schedule that is still climbing when a run of a usual length ends."""
    schedule = read_schedule(exam.optimizer())
    if not schedule.scheduled or schedule.peak <= 0:
        return
    epoch = epoch_steps(exam)
    climbs = schedule.peak_step
    after = [(s, r) for s, r in zip(schedule.steps, schedule.rates, strict=True) if s > climbs]
    ends = next((s for s, r in after if r <= 0.01 * schedule.peak), None)
    total = ends or max(20 * epoch if epoch else 0, 1000)
    long = climbs > 0.5 * total and climbs > 100
    exam.check("warmup", not long, f"{climbs} steps")
    if long:
        exam.found(
            "warmup-too-long",
            ERROR,
            f"the learning rate climbs for {climbs} steps, {climbs / total:.0%} of the run"
            + (f" ({climbs / epoch:.0f} epochs)" if epoch else "")
            + f": after 100 steps it is {schedule.rates[_index(schedule, 100)] / schedule.peak:.1%} of its peak",
            fix=f"warm up for about {max(10, total // 20)} steps, 5 % of the run",
            where="optimizer",
            warmup_steps=climbs,
            run_steps=total,
            peak=schedule.peak,
            rate_after_100=schedule.rates[_index(schedule, 100)],
        )


def _index(schedule, step: int) -> int:
    return min(range(len(schedule.steps)), key=lambda i: abs(schedule.steps[i] - step))


def _decayed(exam: Examination, evidence: dict) -> bool:
    """Whether memorising succeeds once the shrinking part of each update is taken out."""
    if _penalised(exam, evidence):
        return True
    decay = exam.facts.get("heavy_decay")
    if not decay:
        return False
    peak = exam.schedule.peak

    schedule = exam.schedule

    def without(before, after, step):
        rate = (
            np.interp(step, schedule.steps, schedule.rates) / peak
            if exam.facts["decay_follows_rate"]
            else 1.0
        )
        return {n: after[n] + float(rate * decay) * before[n] if after[n].ndim else after[n] for n in after}

    steps = len(exam.facts["minimal"].losses)
    run = exam.run([exam.minimal], steps, measure=exam.minimal, at=(steps,), transform=without)
    own = exam.facts["minimal"].points[-1][1] if exam.facts["minimal"].points else np.inf
    better = bool(run.points) and run.finite and (memorised(exam, run) or own - run.points[-1][1] > 0.2 * own)
    if better:
        coefficient = decay / peak if peak else float("nan")
        exam.found(
            "weight-decay-too-large",
            ERROR,
            f"weight decay takes {decay:.2%} of the weights at every step (a coefficient of about {coefficient:.2g}): "
            f"without it {steps} steps reach {run.points[-1][1]:.2f} nats instead of {own:.2f}",
            fix="set weight_decay to 0.1 or less",
            where="optimizer",
            decay_per_step=decay,
            coefficient=coefficient,
            loss_without=run.points[-1][1],
            loss_with=own,
            **{k: v for k, v in evidence.items() if k != "steps"},
        )
    return better


def correction(b1: float, b2: float):
    """A transform that gives Adam's updates the bias correction that they lack."""

    def corrected(before, after, step):
        t = step + 1
        factor = (1 - b2**t) ** 0.5 / (1 - b1**t)
        return {n: before[n] + factor * (after[n] - before[n]) for n in after}

    return corrected


def _uncorrected(exam: Examination, evidence: dict) -> bool:
    """Whether memorising succeeds once Adam's missing bias correction is supplied."""
    betas = exam.facts.get("no_bias_correction")
    if betas is None:
        return False
    steps = len(exam.facts["minimal"].losses)
    corrected = correction(*betas)
    run = exam.run([exam.minimal], steps, measure=exam.minimal, at=(steps,), transform=corrected)
    if not run.points or not memorised(exam, run):
        return False
    exam.found(
        "no-bias-correction",
        ERROR,
        f"Adam without bias correction oversteps at first: with it the same {steps} steps reach "
        f"{run.points[-1][2]:.0%} instead of {evidence['accuracy_by_scale']['1']:.0%}",
        fix="pass bias_correction=True",
        where="optimizer",
        betas=list(betas),
        **{k: v for k, v in evidence.items() if k != "steps"},
    )
    return True


def _penalised(exam: Examination, evidence: dict) -> bool:
    """Whether the loss holds a penalty on the weights that outweighs the cross-entropy."""
    if exam.subject.loss is None:
        return False
    model = exam.model()
    model.eval()
    batches = [exam.probe_batch(i) for i in range(2)]

    def extra() -> list[float]:
        with exam.calling("loss"):
            return [float(exam.loss(model, b)) - exam.score(model, b)[0] for b in batches]

    plain = extra()
    put(model, {n: 1.1 * a for n, a in tree_flatten(model.trainable_parameters())})
    grown = extra()
    penalty = float(np.mean(plain))
    alike = abs(plain[0] - plain[1]) < 0.02 * abs(penalty)
    if penalty < 0.5 or not alike or abs(np.mean(grown) / penalty - 1.21) > 0.03:
        return False
    squares = sum(
        float((a.astype(mx.float32) ** 2).sum()) for _, a in tree_flatten(exam.model().trainable_parameters())
    )
    exam.found(
        "weight-decay-too-large",
        ERROR,
        f"the loss holds a penalty of {penalty:.3g} on the squared weights (a coefficient of {penalty / squares:.2g}) "
        f"beside a cross-entropy of {exam.facts['start'][0]:.2f} nats: it rules the gradient",
        fix="drop the penalty and use AdamW with weight_decay 0.1 or less",
        where="loss",
        penalty=penalty,
        coefficient=penalty / squares,
        **evidence,
    )
    return True
