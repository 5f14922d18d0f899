"""The subject's greedy decoding against its own argmax."""

from __future__ import annotations

import mlx.nn as nn
import numpy as np

from mlxstories.findings import ERROR, NOTE
from mlxstories.ladder.bench.memorising import memorising
from mlxstories.ladder.examination import Examination

_NEW = 16  # tokens continued
_TIE = 1e-3  # of the logits' spread: choices closer than this may go either way


def examine(exam: Examination) -> None:
    """Continue a few prompts with models whose choices vary, trained and with noisy weights."""
    if exam.subject.generate is None:
        exam.check("generation is the argmax", None, "no generate given")
        return
    models = [("with noisy weights", exam.noisy(13, amount=1.5)), ("untrained", exam.noisy(14))]
    if not exam.has("no-update", "not-finite") and memorising(exam).trial.finite:
        models.append(("after memorising", memorising(exam).trial.model))
    first_wrong = later_wrong = firsts = laters = 0
    example = None
    for name, model in models:
        for prompt in _prompts(exam):
            tokens = _continue(exam, model, prompt)
            verdicts = _verdicts(exam, model, prompt, tokens)
            if not verdicts:
                continue
            firsts, first_wrong = firsts + 1, first_wrong + (not verdicts[0])
            laters, later_wrong = laters + len(verdicts) - 1, later_wrong + verdicts[1:].count(False)
            if False in verdicts and example is None:
                example = (name, verdicts.index(False), prompt, tokens)
    repeats = _repeats(exam, models[0][1])
    wrong = first_wrong + later_wrong
    exam.check(
        "generation is the argmax", not wrong and repeats, f"{wrong} of {firsts + laters} tokens differ"
    )
    _judge(exam, first_wrong, firsts, later_wrong, laters, repeats, example)
    _loops(exam, models[-1][1])


def _prompts(exam: Examination) -> list[list[int]]:
    length = exam.sample.shape[1]
    sizes = sorted({min(length, n) for n in (5, 9)})
    rows = [row[mask > 0] for row, mask in zip(exam.sample.inputs[:2], exam.sample.mask[:2], strict=True)]
    return [[int(i) for i in row[:size]] for row in rows for size in sizes if len(row) >= 2][:3]


def _continue(exam: Examination, model: nn.Module, prompt: list[int]) -> list[int]:
    room = exam.sample.shape[1] - len(prompt)
    count = max(2, min(_NEW, room))
    with exam.calling("generate"):
        exam.seed_all(exam.seed)
        model.train()
        tokens = [int(token) for token in exam.subject.generate(model, list(prompt), count)]
    if len(tokens) > count and tokens[: len(prompt)] == prompt:
        tokens = tokens[len(prompt) :]
    size = exam.subject.vocab_size
    if any(not 0 <= token < size for token in tokens):
        raise exam.fault(
            f"generate returned ids outside 0 to {size - 1}: {tokens[:8]}", "return token ids", "generate"
        )
    return tokens[:count]


def _verdicts(exam: Examination, model: nn.Module, prompt: list[int], tokens: list[int]) -> list[bool]:
    """For each new token, whether it is the argmax after the true prefix; ties count as right."""
    if not tokens:
        return []
    training = model.training
    model.eval()
    logits = np.array(exam.logits(model, np.array([prompt + tokens[:-1]])))[0, len(prompt) - 1 :]
    model.train(training)
    tie = _TIE * float(logits.std())
    return [bool(row[token] >= row.max() - tie) for row, token in zip(logits, tokens, strict=True)]


def _repeats(exam: Examination, model: nn.Module) -> bool:
    prompt = _prompts(exam)[:1]
    if not prompt:
        return True
    first = _continue(exam, model, prompt[0])
    with exam.calling("generate"):
        exam.seed_all(exam.seed + 77)
        second = [int(t) for t in exam.subject.generate(model, list(prompt[0]), max(2, len(first)))]
    second = (
        second[len(prompt[0]) :]
        if second[: len(prompt[0])] == prompt[0] and len(second) > len(first)
        else second
    )
    return second[: len(first)] == first


def _judge(exam, first_wrong, firsts, later_wrong, laters, repeats, example) -> None:
    if not firsts or (repeats and not first_wrong and not later_wrong):
        return
    evidence = {
        "first_tokens": firsts,
        "first_tokens_wrong": first_wrong,
        "later_tokens": laters,
        "later_tokens_wrong": later_wrong,
        "repeatable": repeats,
    }
    if example is not None:
        name, at, prompt, tokens = example
        evidence |= {"model": name, "first_difference_at": at, "prompt": prompt, "generated": tokens}
    if repeats and first_wrong == 0:
        exam.found(
            "cache-mismatch",
            ERROR,
            f"decoding starts right, then {later_wrong} of {laters} later tokens are not the model's own choice for "
            "that prefix: the cached step computes something else than the full forward pass",
            fix="check positions (offset = tokens already cached), the order of keys and values, and that the cache "
            "holds each token once",
            where="generate",
            **evidence,
        )
        return
    exam.found(
        "generation-mismatch",
        ERROR,
        f"{first_wrong} of {firsts} first tokens and {later_wrong} of {laters} later ones are not the model's argmax"
        + ("" if repeats else "; the same prompt continues differently each time"),
        fix="take logits[:, -1] of the model in evaluation mode, and its argmax, without temperature or penalties",
        where="generate",
        **evidence,
    )


def _loops(exam: Examination, model: nn.Module) -> None:
    for prompt in _prompts(exam)[:1]:
        tokens = _continue(exam, model, prompt)
        if len(tokens) >= 8 and len(set(tokens[-8:])) == 1:
            exam.found(
                "repetition-loop",
                NOTE,
                f"greedy text ends in one token, id {tokens[-1]}, again and again",
                fix="sample with a temperature and top-k or nucleus, and train longer",
                where="generate",
                token=tokens[-1],
            )
