"""Rung 5: a short real training, against word frequencies, pairs of words and the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.findings import ERROR, NOTE, WARNING
from mlxstories.ladder.bench.adam import correction, uncorrected_betas
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.bench.memorising import slow
from mlxstories.ladder.bench.rates import rate_sweep
from mlxstories.ladder.examination import Examination, token_losses

_RAMP = 10  # steps over which the update grows to its full size
_BUDGET = 600_000  # logits of one step
_GAP = 0.25  # nats between unigram and bigram below which beating the unigram proves nothing
_ORDER = 0.1  # of the way from the unigram to the floor: what some order of the words must be worth


@dataclass(frozen=True)
class Baselines:
    """Losses in nats per token on the held-out rows, from counts of the training tokens."""

    unigram: float
    bigram: float
    repeats: float  # a bigram that also knows whether the token before was the same
    recall: float  # a bigram mixed with what followed the same token earlier in the row

    @property
    def best(self) -> float:
        return min(self.unigram, self.bigram, self.repeats, self.recall)


def climb(exam: Examination) -> None:
    """Train for a little while on fresh batches and compare."""
    if exam.has():
        exam.check("a short training", None, f"{exam.cause} comes first")
        return
    batches, held, unseen = _material(exam)
    steps = _steps(exam, batches)
    baselines = count_baselines(exam, held)
    at = sorted({max(1, round(steps * f)) for f in (0.1, 0.25, 0.5, 0.75, 1.0)})
    run = exam.run(batches, steps, measure=held, at=at, ramp=_RAMP)
    exam.facts |= {"trained": run, "held": held, "baselines": baselines}
    points = run.points
    exam.rung.figures["short"] = {
        "points": points,
        "losses": run.losses,
        "unigram": baselines.unigram,
        "bigram": baselines.bigram,
        "floor": exam.subject.floor,
    }
    if not run.finite or len(run.losses) < steps:
        _unstable(exam, run, batches, held, steps, baselines)
        return
    loss, accuracy = points[-1][1:]
    margin = _margin(exam, run.model, held)
    exam.facts["margin"] = margin
    detail = (
        f"{loss:.2f} ± {margin:.2f} nats, {accuracy:.1%} after {steps} steps; "
        f"unigram {baselines.unigram:.2f}, bigram {baselines.bigram:.2f}"
    )
    if not _oversteps(exam, loss, batches, held, steps, baselines, margin):
        _baseline(exam, run, batches, held, steps, baselines, margin, detail)
    _floor(exam, loss, accuracy, margin, unseen, baselines)


def _material(exam: Examination) -> tuple[list[HostBatch], HostBatch, bool]:
    """Training batches of a bounded size, and rows held out of them: validation where there is any."""
    pool = exam.pool(2048)
    rng = np.random.default_rng((exam.seed, 41))
    pool = pool.rows(rng.permutation(pool.shape[0]))
    full = exam.train.batches[0].shape[0]
    rows = full
    while rows > 4 and rows * pool.shape[1] * exam.subject.vocab_size > _BUDGET:
        rows = (rows + 1) // 2
    if rows * pool.shape[1] * exam.subject.vocab_size > 2 * _BUDGET:
        pool = pool.cut(max(16, 2 * _BUDGET // (rows * exam.subject.vocab_size)))
    if exam.minimal.shape[0] == full:  # the step insists on full batches, or batches are this small
        rows = full
    unseen = exam.val is not None
    held = exam.pool(32, exam.val) if unseen else pool.rows(slice(0, min(16, pool.shape[0] // 4)))
    if not unseen and pool.shape[0] >= 2 * rows + held.shape[0]:
        pool = pool.rows(slice(held.shape[0], None))
    if held.shape[0] == 0:
        held = pool.rows(slice(0, 4))
    rows = min(rows, pool.shape[0])
    count = max(1, pool.shape[0] // rows)
    return [pool.rows(slice(i * rows, (i + 1) * rows)) for i in range(count)], held, unseen


def _steps(exam: Examination, batches: list[HostBatch]) -> int:
    cells = batches[0].inputs.size * exam.subject.vocab_size
    return 40 if slow(exam) else 60 if cells > 500_000 else 100


def count_baselines(exam: Examination, held: HostBatch) -> Baselines:
    """Unigram and bigram (interpolated, Witten and Bell 1991) losses of the held-out rows."""
    size = exam.subject.vocab_size
    after = np.concatenate([b.targets[b.mask > 0] for b in exam.train.batches])
    counts = np.bincount(after, minlength=size).astype(np.float64)
    unigram = (counts + 0.5) / (counts.sum() + 0.5 * size)
    real = held.mask > 0
    y = held.targets[real]

    def conditional(before: np.ndarray, x: np.ndarray, contexts: int) -> np.ndarray:
        keys, pairs = np.unique(before * size + after, return_counts=True)
        seen = np.bincount(before, minlength=contexts)
        kinds = np.bincount(keys // size, minlength=contexts)
        place = np.minimum(np.searchsorted(keys, x * size + y), len(keys) - 1)
        joint = np.where(keys[place] == x * size + y, pairs[place], 0)
        shares = (joint + kinds[x] * unigram[y]) / np.maximum(seen[x] + kinds[x], 1)
        return np.where(seen[x] > 0, shares, unigram[y])

    plain = np.concatenate([b.inputs[b.mask > 0] for b in exam.train.batches])
    doubled = np.concatenate([_with_repeats(b.inputs)[b.mask > 0] for b in exam.train.batches])
    pairs = conditional(plain, held.inputs[real], size)
    hit, guessed = _recalled(exam.sample)
    trust = hit[guessed].mean() if guessed.any() else 0.0
    hit, guessed = _recalled(held)
    recalled = np.where(guessed[real], trust * hit[real] + (1 - trust) * pairs, pairs)
    shares = (unigram[y], pairs, conditional(doubled, _with_repeats(held.inputs)[real], 2 * size), recalled)
    return Baselines(*(float(-np.log(np.maximum(p, 1e-12)).mean()) for p in shares))


def _recalled(batch: HostBatch) -> tuple[np.ndarray, np.ndarray]:
    """Whether each target is what followed the last earlier occurrence of the current token in its row, and
    whether there was one; [B, T] each."""
    ids, length = batch.inputs, batch.shape[1]
    earlier = (ids[:, :, None] == ids[:, None, :]) & np.tri(length, k=-1, dtype=bool)
    guessed = earlier.any(-1)
    last = length - 1 - np.argmax(earlier[:, :, ::-1], axis=-1)
    guess = np.take_along_axis(batch.targets, np.where(guessed, last, 0), axis=1)
    guessed &= batch.mask > 0
    return (guess == batch.targets) & guessed, guessed


def _with_repeats(inputs: np.ndarray) -> np.ndarray:
    """2 x id, plus 1 where the id before is the same."""
    same = np.zeros_like(inputs)
    same[:, 1:] = inputs[:, 1:] == inputs[:, :-1]
    return 2 * inputs + same


def _margin(exam: Examination, model, held: HostBatch) -> float:
    """Two standard errors of the held-out loss, rows being independent."""
    device = held.rows(slice(0, 32)).device()
    training = model.training
    model.eval()
    losses, _ = token_losses(exam.logits(model, device.inputs), device.targets)
    model.train(training)
    real = np.array(device.mask) > 0
    rows = [float(r[m].mean()) for r, m in zip(np.array(losses), real, strict=True) if m.any()]
    return 2 * float(np.std(rows) / np.sqrt(max(len(rows) - 1, 1)))


def _baseline(exam, run, batches, held, steps, baselines: Baselines, margin: float, detail: str) -> None:
    loss = run.points[-1][1]
    earlier = run.points[-3][1] if len(run.points) >= 3 else float("inf")
    if loss < baselines.unigram - min(margin, 0.1):
        exam.check("better than word frequencies", True, detail)
        return
    falling = earlier - loss > 0.03
    if _without_order(exam, loss, baselines, margin, steps):
        return
    evidence = {
        "loss": loss,
        "margin": margin,
        "unigram": baselines.unigram,
        "bigram": baselines.bigram,
        "steps": steps,
    }
    known = exam.score(run.model, batches[0])[0]
    if known < baselines.unigram - 0.3:
        exam.check("better than word frequencies", None, f"{detail}; {known:.2f} on training rows")
        exam.found(
            "overfitting",
            WARNING,
            f"after {steps} steps training rows cost {known:.2f} nats, held-out rows {loss:.2f}, more than word "
            f"frequencies ({baselines.unigram:.2f}): the rows are learned by heart",
            fix="use more stories, fewer epochs or dropout",
            where="train_batches",
            train_loss=known,
            **evidence,
        )
        return
    slower = exam.run(batches, steps, measure=held, at=(steps,), ramp=_RAMP, scale=0.1)
    other = slower.points[-1][1] if slower.points and slower.finite else float("inf")
    evidence["loss_at_a_tenth_of_the_rate"] = other
    if other < loss - max(0.3, 2 * margin) and not falling:
        _too_large(exam, loss, other, steps, evidence)
        return
    proof = baselines.unigram - baselines.best > max(_GAP, 2 * margin)
    flat = proof and not falling and loss > baselines.best - 0.05
    if flat:  # before an accusation, three times as long
        longer = exam.run(batches, 3 * steps, measure=held, at=(3 * steps,), ramp=_RAMP)
        final = longer.points[-1][1] if longer.points else float("nan")
        evidence |= {"loss": final, "steps": 3 * steps}
        flat = not final < min(loss - 0.05, baselines.unigram - 0.05)
        loss, steps = final, 3 * steps
    exam.check("better than word frequencies", None if not flat else False, detail)
    if flat:
        exam.found(
            "no-better-than-unigram",
            ERROR,
            f"after {steps} steps of real training the loss stands at {loss:.2f} ± {margin:.2f} nats, where word "
            f"frequencies alone give {baselines.unigram:.2f} and pairs of words {baselines.bigram:.2f}",
            fix="look for what hides the previous tokens from the model: dropout, attention, inputs of other rows",
            where="model",
            **evidence,
        )
    elif proof:
        exam.found(
            "no-better-than-unigram",
            NOTE,
            f"after {steps} steps the loss, {loss:.2f} ± {margin:.2f} nats, is not below that of word frequencies "
            f"({baselines.unigram:.2f}) but still falling",
            fix="train longer, or try a larger learning rate",
            **evidence,
        )


def _oversteps(exam, loss, batches, held, steps, baselines: Baselines, margin: float) -> bool:
    """Whether smaller steps do far better, asked where there is reason to: the minimal rung did no worse at a
    third of the rate, or Adam's bias is not corrected."""
    if loss < baselines.best + 0.1:
        return False
    enough = loss - max(0.3, 2 * margin)
    evidence = {"loss": loss, "margin": margin, "unigram": baselines.unigram, "steps": steps}
    betas = uncorrected_betas(exam)
    if betas is not None:
        run = exam.run(batches, steps, measure=held, at=(steps,), ramp=_RAMP, transform=correction(*betas))
        other = run.points[-1][1] if run.points and run.finite else float("inf")
        if other < enough:
            exam.check("better than word frequencies", False, f"{loss:.2f} nats, bias corrected {other:.2f}")
            exam.found(
                "no-bias-correction",
                ERROR,
                f"Adam without bias correction oversteps: {steps} steps of real training end at {loss:.2f} nats, "
                f"with the correction at {other:.2f}",
                fix="pass bias_correction=True",
                where="optimizer",
                betas=list(betas),
                loss_corrected=other,
                **evidence,
            )
            return True
    sweep = rate_sweep(exam).by_scale if rate_sweep in exam.taken else {}
    if 0.3 in sweep and sweep[0.3][0] < sweep[1.0][0] + 0.05:
        run = exam.run(batches, steps, measure=held, at=(steps,), ramp=_RAMP, scale=0.1)
        other = run.points[-1][1] if run.points and run.finite else float("inf")
        if other < enough:  # before an accusation, without the ramp, which momentum may not suit
            plain = exam.run(batches, steps, measure=held, at=(steps,))
            own = plain.points[-1][1] if plain.points and plain.finite else float("inf")
            loss = evidence["loss"] = min(loss, own)
        if other < loss - max(0.3, 2 * margin):
            _too_large(exam, loss, other, steps, {**evidence, "loss_at_a_tenth_of_the_rate": other})
            return True
    return False


def _without_order(exam: Examination, loss: float, baselines: Baselines, margin: float, steps: int) -> bool:
    """Whether the tokens before tell nothing at all, although the source's floor says that they should."""
    floor = exam.subject.floor
    if floor is None or baselines.unigram - floor < 0.5:
        return False
    if baselines.unigram - min(baselines.best, loss) > _ORDER * (baselines.unigram - floor):
        return False
    exam.check("better than word frequencies", False, f"{loss:.2f} nats, unigram {baselines.unigram:.2f}")
    exam.found(
        "no-better-than-unigram",
        ERROR,
        f"the token before tells nothing of the next: pairs of words reach {baselines.bigram:.2f} nats, word "
        f"frequencies alone {baselines.unigram:.2f}, where the source's entropy is {floor:.2f}; {steps} steps of "
        f"training stand at {loss:.2f} ± {margin:.2f}",
        fix="look at the batches: the order of the words was lost on the way",
        where="train_batches",
        loss=loss,
        margin=margin,
        unigram=baselines.unigram,
        bigram=baselines.bigram,
        floor=floor,
    )
    return True


def _too_large(exam: Examination, loss: float, other: float, steps: int, evidence: dict) -> None:
    peak = exam.schedule.peak
    exam.check("better than word frequencies", False, f"{loss:.2f} nats, {other:.2f} at a tenth of the rate")
    exam.found(
        "learning-rate-too-large",
        ERROR,
        (f"learning rate {peak:g}" if peak else "the step's size")
        + f" is too large for real batches: {steps} steps end at {loss:.2f} nats, at a tenth of it at {other:.2f}",
        fix=f"lower the learning rate to about {peak / 10:.2g}"
        if peak
        else "make the steps ten times smaller",
        where="optimizer",
        learning_rate=peak,
        **evidence,
    )


def _unstable(exam: Examination, run, batches, held, steps: int, baselines: Baselines) -> None:
    slower = exam.run(batches, steps, measure=held, at=(steps,), ramp=_RAMP, scale=0.1)
    stable = bool(slower.points) and slower.finite
    exam.check("stays finite", False, f"{len(run.losses)} steps")
    exam.found(
        "learning-rate-too-large" if stable else "not-finite",
        ERROR,
        f"the loss is not finite after {len(run.losses)} steps of real training"
        + (f"; at a tenth of the learning rate it reaches {slower.points[-1][1]:.2f} nats" if stable else ""),
        fix=f"lower the learning rate to about {exam.schedule.peak / 10:.2g}"
        if stable
        else "look for a division by 0, a log of 0 or a float16 overflow",
        where="optimizer" if stable else "model",
        steps=len(run.losses),
        learning_rate=exam.schedule.peak,
    )


def _floor(exam: Examination, loss, accuracy, margin: float, unseen: bool, baselines: Baselines) -> None:
    floor = exam.subject.floor
    if floor is None or not unseen:
        exam.check(
            "not below the floor", None, "no floor given" if floor is None else "no validation data given"
        )
        return
    counted = baselines.best < floor - 2 * margin - 0.05
    below = loss < floor - 2 * margin - 0.02
    exam.check("not below the floor", not (below or counted), f"{loss:.2f} nats, floor {floor:.2f}")
    if counted and not below:
        exam.found(
            "too-good-to-be-true",
            ERROR,
            f"counts of pairs and repeats alone predict validation at {baselines.best:.2f} nats, below the source's "
            f"entropy of {floor:.2f}: this is not the text that the floor belongs to",
            fix="look at the texts that reach the batches: words written twice, boilerplate, a floor of other stories",
            where="val_batches",
            counts=baselines.best,
            floor=floor,
            margin=margin,
        )
    elif below:
        exam.found(
            "too-good-to-be-true",
            ERROR,
            f"the validation loss, {loss:.2f} ± {margin:.2f} nats, lies below the source's entropy of {floor:.2f}, "
            "which no honest model can reach",
            fix="look for a leak: validation stories in training, a model that sees the future, padding counted",
            where="val_batches",
            loss=loss,
            accuracy=accuracy,
            floor=floor,
            margin=margin,
        )
