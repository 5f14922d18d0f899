"""Rung 1: what can be known of the data before any model sees it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from mlxstories.findings import ERROR, NOTE, WARNING
from mlxstories.ladder.bench.batches import HostBatch
from mlxstories.ladder.examination import Epoch, Examination
from mlxstories.ladder.overlap import row_overlap, text_overlap, window_overlap
from mlxstories.ladder.subject import describe_error

_UNKNOWN_ERROR, _UNKNOWN_WARNING = 0.10, 0.03
_OVERLAP_ERROR, _OVERLAP_WARNING = 0.03, 0.005


def climb(exam: Examination) -> None:
    """Check batches, ids, targets, masks, tokenizer and the split."""
    if not exam.train.batches:
        raise exam.fault("train_batches(seed) yields no batch", "yield at least one batch an epoch")
    if exam.val is not None and not exam.val.batches:
        raise exam.fault("val_batches() yields no batch", "yield at least one batch")
    if not any((b.mask > 0).any() for b in exam.train.batches):
        raise exam.fault("every training mask is 0 throughout", "set the mask to 1 on real tokens")
    rows, columns = exam.train.batches[0].shape
    exam.check("batches", True, f"{len(exam.train.batches)} of {rows} x {columns} read")
    _ids(exam)
    if exam.has("token-out-of-range"):  # what comes next may look the ids up
        return
    _variety(exam)
    _targets(exam)
    _padding(exam)
    _tokenizer(exam)
    _split(exam)


def _epochs(exam: Examination) -> list[tuple[str, Epoch]]:
    return [("train_batches", exam.train)] + ([("val_batches", exam.val)] if exam.val else [])


def _ids(exam: Examination) -> None:
    size, bad = exam.subject.vocab_size, []
    for source, epoch in _epochs(exam):
        for index, batch in enumerate(epoch.batches):
            for name, ids in (("inputs", batch.inputs), ("targets", batch.targets)):
                real = batch.mask > 0
                wrong = (ids >= size) | ((ids < 0) & real) | (ids < -size)
                if name == "targets":
                    wrong &= real
                if wrong.any():
                    bad.append((source, index, name, int(ids[wrong][0]), int(wrong.sum())))
    exam.check("ids inside the vocabulary", not bad, f"0 to {size - 1}")
    if bad:
        source, index, name, token, _ = bad[0]
        exam.found(
            "token-out-of-range",
            ERROR,
            f"batch {index} of {source} holds id {token} in its {name}, outside 0 to {size - 1}; "
            "MLX reads past the table without a word",
            fix=f"set vocab_size to at least {max(t for *_, t, _ in bad) + 1} or encode with a tokenizer of {size} ids",
            where=f"{source}, batch {index}",
            id=token,
            vocab_size=size,
            cells=sum(count for *_, count in bad),
        )


def _variety(exam: Examination) -> None:
    batches = exam.train.batches
    distinct = len({_key(batch) for batch in batches})
    rows = np.concatenate([_row_keys(batch) for batch in batches])
    same_rows = sum(len(set(_row_keys(b))) == 1 and b.shape[0] > 1 for b in batches) / len(batches)
    exam.facts["epoch_steps"] = len(batches) if exam.train.complete else None
    evidence = {"batches": len(batches), "distinct_batches": distinct, "distinct_rows": len(set(rows))}
    problem = None
    if len(batches) >= 3 and distinct <= max(1, len(batches) // 20):
        problem = f"the {len(batches)} batches of an epoch are {distinct} batch repeated"
    elif same_rows > 0.5:
        problem = "all rows of a batch are the same row"
    elif exam.train.complete:
        again = f"train_batches({exam.seed + 1})"
        second = exam.read(again, lambda: exam.subject.train_batches(exam.seed + 1)).batches[:64]
        if not second:
            problem = "train_batches yields nothing the second time it is called"
        elif len(batches) >= 3 and [_key(b) for b in second] == [_key(b) for b in batches[: len(second)]]:
            exam.found(
                "constant-batches",
                NOTE,
                "every epoch brings the same batches in the same order",
                fix="shuffle with the seed that train_batches receives",
                **evidence,
            )
    if problem is None and len(rows) >= 32 and len(set(rows)) < 0.2 * len(rows):
        exam.found(
            "constant-batches",
            WARNING,
            f"an epoch of {len(rows)} rows holds only {len(set(rows))} different ones",
            fix="let an epoch visit each story once",
            **evidence,
        )
    exam.check("batches differ", problem is None, f"{distinct} of {len(batches)} distinct")
    if problem:
        exam.found(
            "constant-batches",
            ERROR,
            problem,
            fix="make train_batches a function that starts a new, reshuffled pass over all stories on every call",
            where="train_batches",
            **evidence,
        )


def _key(batch: HostBatch) -> bytes:
    return batch.inputs.tobytes() + batch.targets.tobytes()


def _row_keys(batch: HostBatch) -> list[bytes]:
    return [row.tobytes() for row in batch.inputs]


def shift_rates(batches: list[HostBatch], shifts=range(-3, 5)) -> tuple[dict[int, float], int]:
    """For each shift k, the share of real cells whose target is the input k places on, and the cells counted.
    Only cells whose neighbour is real too count, and the one kind of seam between documents does not."""
    rates: dict[int, list[float]] = {k: [0, 0] for k in shifts}
    for k in shifts:
        missed = []
        for batch in batches:
            length = batch.shape[1]
            lo, hi = max(0, -k), min(length, length - k)
            if hi <= lo:
                continue
            target, following = batch.targets[:, lo:hi], batch.inputs[:, lo + k : hi + k]
            real = (batch.mask[:, lo:hi] > 0) & (batch.mask[:, lo + k : hi + k] > 0)
            rates[k][0] += int(((target == following) & real).sum())
            rates[k][1] += int(real.sum())
            off = (target != following) & real
            missed.append(np.stack([target[off], following[off]]))
        if k == 1 and missed:
            rates[k][1] -= _seams(np.concatenate(missed, axis=1), rates[k][1])
    return {k: hit / max(count, 1) for k, (hit, count) in rates.items()}, rates[1][1]


def _seams(missed: np.ndarray, cells: int) -> int:
    """How many mismatches are documents' seams: one end token before, or one begin token after, all of them."""
    if missed.shape[1] == 0 or missed.shape[1] > 0.25 * cells:
        return 0
    for side in missed:
        _, counts = np.unique(side, return_counts=True)
        if counts.max() >= 0.98 * missed.shape[1]:
            return missed.shape[1]
    return 0


def _targets(exam: Examination) -> None:
    for source, epoch in _epochs(exam):
        rates, cells = shift_rates(epoch.batches)
        if cells < 8:
            exam.check(f"targets of {source} follow the inputs", None, "rows too short to tell")
            continue
        right = rates[1]
        exam.check(f"targets of {source} follow the inputs", right >= 0.97, f"{right:.1%} of {cells} cells")
        if right >= 0.97:
            continue
        evidence = {"match_by_shift": {str(k): round(v, 4) for k, v in rates.items()}, "cells": cells}
        best = max(rates, key=rates.get)
        if best == 0 and rates[0] > max(0.5, right + 0.02):
            exam.found(
                "targets-not-shifted",
                ERROR,
                f"the targets equal the inputs at {rates[0]:.1%} of the real tokens of {source}: it learns to copy",
                fix="take inputs = tokens[:, :-1] and targets = tokens[:, 1:]",
                where=source,
                **evidence,
            )
            continue
        what = f"only {right:.1%} of the targets of {source} are the next input"
        if best != 1 and rates[best] > max(0.8, right + 0.1):
            what += f"; {rates[best]:.1%} are the input {abs(best)} {'ahead' if best > 0 else 'behind'}"
        elif _rows_swapped(epoch.batches):
            what += "; they are the next inputs of other rows"
        exam.found(
            "targets-mismatched",
            ERROR,
            what,
            fix="cut inputs and targets from the same rows, one place apart, and shuffle them together",
            where=source,
            **evidence,
        )


def _rows_swapped(batches: list[HostBatch]) -> bool:
    found = total = 0
    for batch in batches[:8]:
        heads = {row.tobytes() for row in batch.inputs[:, 1:]}
        found += sum(row.tobytes() in heads for row in np.ascontiguousarray(batch.targets[:, :-1]))
        total += batch.shape[0]
    return found > 0.5 * total


def trailing_padding(batches: list[HostBatch], side: str = "targets") -> tuple[int, int, float, float] | None:
    """The token that fills the ends (or beginnings) of rows and is repeated nowhere else.

    Returns (token, real cells it fills, their share of all real cells, share of rows), or None.
    """
    for flip in (False, True):
        runs: Counter[int] = Counter()
        rows_with: Counter[int] = Counter()
        inside: Counter[int] = Counter()
        masked: Counter[int] = Counter()
        rows = real = 0
        for batch in batches:
            ids, mask = getattr(batch, side), batch.mask > 0
            if flip:
                ids, mask = ids[:, ::-1], mask[:, ::-1]
            same = np.cumprod((ids == ids[:, -1:])[:, ::-1], axis=1).sum(1)
            rows, real = rows + len(ids), real + int(mask.sum())
            pairs = ids[:, 1:] == ids[:, :-1]
            for row, run, m, pair in zip(ids, same, mask, pairs, strict=True):
                token = int(row[-1])
                # The first of a run may be a true end of story.
                filled = int(m[len(row) - run + 1 :].sum()) if run < len(row) else 0
                runs[token] += filled
                rows_with[token] += filled >= 2
                masked[token] += int((~m[len(row) - run :]).sum())
                inner = row[: len(row) - run]
                for repeated in inner[1:][pair[: len(inner) - 1]] if len(inner) > 1 else ():
                    inside[int(repeated)] += 1
        if not runs or not real:
            continue
        token, filled = runs.most_common(1)[0]
        share = rows_with[token] / rows
        if filled >= 0.01 * real and share >= 0.1 and inside[token] <= 0.02 * filled:
            return token, filled, filled / real, share
    return None


def _padding(exam: Examination) -> None:
    train = trailing_padding(exam.train.batches)
    exam.check("padding is masked", train is None)
    if train:
        token, cells, share, rows = train
        exam.found(
            "padding-in-loss",
            ERROR,
            f"the mask counts {cells} padding cells (runs of id {token}) as real, {share:.1%} of all it counts",
            fix="set the mask to 0 after the end of each story",
            where="train_batches",
            padding_id=token,
            share_of_real_cells=share,
            share_of_rows=rows,
        )
    if exam.val and not train and (val := trailing_padding(exam.val.batches)):
        token, cells, share, rows = val
        exam.check("padding is masked in validation", False)
        exam.found(
            "padding-in-accuracy",
            ERROR,
            f"the validation mask counts {cells} padding cells (runs of id {token}) as real, {share:.1%} of all",
            fix="set the mask to 0 after the end of each story in validation as in training",
            where="val_batches",
            padding_id=token,
            share_of_real_cells=share,
            share_of_rows=rows,
        )


_WORD = re.compile(r"\w+", re.UNICODE)


def _shingles(text: str, size: int = 4) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + size]) for i in range(0, len(words) - size + 1, size)]


def _tokenizer(exam: Examination) -> None:
    subject = exam.subject
    tokenizer = subject.tokenizer
    if tokenizer is None:
        exam.check("tokenizer fits the batches", None, "no tokenizer given")
        return
    for source, epoch, texts in (
        ("train", exam.train, subject.train_texts),
        ("val", exam.val, subject.val_texts),
    ):
        if texts is None or epoch is None or len(texts) == 0:
            exam.check(f"tokenizer fits the {source} batches", None, f"no {source}_texts or batches given")
            continue
        with exam.calling("the tokenizer"):
            _fit(exam, source, epoch, [str(text) for text in texts])
    if not exam.has("token-out-of-range"):
        _unknown(exam)


def _fit(exam: Examination, source: str, epoch: Epoch, texts: list[str]) -> None:
    tokenizer, size = exam.subject.tokenizer, exam.subject.vocab_size
    some = texts[:: max(1, len(texts) // 24)][:24]
    encoded = [[int(i) for i in tokenizer.encode(text)] for text in some]
    highest = max((max(ids) for ids in encoded if ids), default=0)
    if highest >= size:
        exam.check(f"tokenizer fits the {source} batches", False, f"id {highest}")
        exam.found(
            "tokenizer-mismatch",
            ERROR,
            f"the tokenizer gives id {highest}, but vocab_size is {size}",
            fix="use the tokenizer that the batches were made with, and its vocabulary size",
            where="tokenizer",
            id=highest,
            vocab_size=size,
        )
        return
    corpus = " ".join(" ".join(_WORD.findall(text.lower())) for text in texts[:20_000])

    def known(decoded: list[str]) -> tuple[float, int]:
        shingles = [s for text in decoded for s in _shingles(text)][:240]
        return (sum(s in corpus for s in shingles) / len(shingles) if shingles else 0.0), len(shingles)

    expected, count = known([str(tokenizer.decode(ids)) for ids in encoded])
    rows = [
        [int(i) for i in row[mask > 0]]
        for batch in epoch.batches[:8]
        for row, mask in list(zip(batch.inputs, batch.mask, strict=True))[:4]
    ]
    try:
        found, seen = known([str(tokenizer.decode(ids)) for ids in rows])
    except Exception as error:  # ids that this tokenizer does not have
        highest = max(max(ids, default=0) for ids in rows)
        exam.check(f"tokenizer fits the {source} batches", False, describe_error(error))
        exam.found(
            "tokenizer-mismatch",
            ERROR,
            f"the tokenizer cannot decode the {source} batches, whose ids reach {highest}: {describe_error(error)}",
            fix="encode training and validation with one and the same tokenizer, and hand that one over",
            where=f"{source}_batches",
            id=highest,
        )
        return
    if count < 5 or seen < 5 or expected < 0.2:
        exam.check(
            f"tokenizer fits the {source} batches", None, "decoded texts too short or lossy to compare"
        )
        return
    fits = found >= 0.6 * expected
    exam.check(
        f"tokenizer fits the {source} batches", fits, f"{found:.0%} of decoded phrases are in the texts"
    )
    if not fits:
        exam.found(
            "tokenizer-mismatch",
            ERROR,
            f"decoded with this tokenizer, {found:.0%} of the {source} batches' phrases occur in {source}_texts, "
            f"where {expected:.0%} would if it had made them",
            fix="encode training and validation with one and the same tokenizer, and hand that one over",
            where=f"{source}_batches",
            phrases_found=found,
            phrases_expected=expected,
            phrases=seen,
        )


def unknown_ids(exam: Examination) -> list[int]:
    """The id, if any, to which the tokenizer sends what it does not know."""
    answers = []
    with exam.calling("the tokenizer"):
        for strange in ("\u2603", "\u16a0", "\U0001f9ff"):
            try:
                answers.append(tuple(int(i) for i in exam.subject.tokenizer.encode(strange)))
            except (KeyError, ValueError, IndexError):  # a closed vocabulary: nothing is unknown
                return []
    same = set(answers)
    return [answers[0][0]] if len(same) == 1 and len(answers[0]) == 1 else []


def _unknown(exam: Examination) -> None:
    ids = unknown_ids(exam)
    texts = exam.subject.train_texts
    if ids and texts is not None:
        with exam.calling("the tokenizer"):
            stands_for = str(exam.subject.tokenizer.decode(ids)).strip().lower()
        if stands_for and any(stands_for in str(text).lower().split() for text in list(texts)[:200]):
            ids = []  # a real word shares the id, so that its share says nothing
    if not ids:
        exam.check("unknown words", None, "the tokenizer has no unknown id")
        return
    share = max(
        float(np.mean(np.concatenate([(b.targets == ids[0])[b.mask > 0] for b in epoch.batches])))
        for _, epoch in _epochs(exam)
    )
    exam.check("unknown words", share < _UNKNOWN_ERROR, f"{share:.1%}")
    if share >= _UNKNOWN_WARNING:
        exam.found(
            "high-unknown-rate",
            ERROR if share >= _UNKNOWN_ERROR else WARNING,
            f"{share:.1%} of the tokens are the unknown token, id {ids[0]}: predicting it is easy and says nothing",
            fix="train the tokenizer on these stories with a larger vocabulary, or use subwords",
            where="tokenizer",
            share=share,
            unknown_id=ids[0],
        )


def _split(exam: Examination) -> None:
    subject = exam.subject
    shares: dict[str, tuple[float, float]] = {}
    if subject.train_texts is not None and subject.val_texts is not None:
        shares["texts"] = text_overlap(list(subject.train_texts), list(subject.val_texts))
    if exam.val is not None:
        shares["rows"] = row_overlap(exam.train.batches, exam.val.batches)
        shares["windows"] = window_overlap(exam.train.batches, exam.val.batches)
    if not shares:
        exam.check("validation is unseen", None, "no validation data given")
        return
    kind, (share, natural) = max(shares.items(), key=lambda item: item[1][0] - 2 * item[1][1])
    rows = len(subject.val_texts) if kind == "texts" else sum(batch.shape[0] for batch in exam.val.batches)
    margin = 2 * (natural * (1 - natural) / rows) ** 0.5  # two standard errors of what chance repeats
    excess = share - 2 * natural - margin
    failed = excess >= _OVERLAP_ERROR
    detail = ", ".join(f"{value[0]:.1%} of {name}" for name, value in shares.items())
    exam.check("validation is unseen", not failed, f"shared with training: {detail}")
    if excess >= _OVERLAP_WARNING:
        exam.found(
            "train-val-overlap",
            ERROR if failed else WARNING,
            f"{share:.1%} of the validation {kind} also stand in the training data "
            f"(within the training data itself {natural:.1%} repeat)",
            fix="split by story after removing exact and near duplicates, then tokenize and pack each side alone",
            where="val_batches" if kind != "texts" else "val_texts",
            shared=share,
            repeated_within_training=natural,
            margin=margin,
            **{f"shared_{name}": value[0] for name, value in shares.items()},
        )
