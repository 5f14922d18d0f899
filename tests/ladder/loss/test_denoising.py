"""Models of masked and of noised tokens, which are recognised, and losses and rows that look like theirs."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from tiny import B, T, V, batches, subject

from mlxstories.batch import Batch
from mlxstories.ladder import diagnose

MASK = V - 1


def noised(share, ids=MASK):
    return lambda tokens: mx.where(mx.random.uniform(shape=tokens.shape) < share, ids, tokens)


def loss(noise, targets):
    """Of the cells that were changed, or of all."""

    def of(model, batch):
        read, asked = noise(batch.inputs), targets(batch)
        counts = read != batch.inputs if asked is batch.inputs else mx.ones(read.shape)
        return (nn.losses.cross_entropy(model(read), asked) * counts).sum() / mx.maximum(counts.sum(), 1)

    return of


def rows(unasked, share=0.3, follow=False):
    """Batches in which the mask stands for tokens, which count alone, or the tokens that follow."""

    def made(seed):
        rng = np.random.default_rng(seed)
        for batch in batches(seed):
            inputs, targets = (np.minimum(np.array(a), MASK - 1) for a in batch[:2])
            hit = rng.random(inputs.shape) < share
            asked, counts = (
                (targets, np.ones((B, T))) if follow else (np.where(hit, inputs, unasked(inputs)), hit)
            )
            yield Batch(*map(mx.array, (np.where(hit, MASK, inputs), asked, counts.astype(np.float32))))

    return made


def own(inputs):
    return inputs


def ignored(inputs):
    return np.full_like(inputs, -100)


def refused(**fields):
    diagnosis = diagnose(subject(**fields), rungs=["data"])
    told = [f.code for f in diagnosis.findings if "masked language model" in f.message]
    # no error was found, and nothing is healthy
    assert (diagnosis.exit_code == 2) == (told == ["subject-error"])
    return bool(told)


@pytest.mark.parametrize("unasked", [own, ignored])
def test_rows_with_masked_tokens_are_recognised(unasked):
    assert refused(train_batches=rows(unasked))


@pytest.mark.parametrize("ids", [MASK, 3])
def test_a_loss_that_noises_and_asks_for_what_stood_there_is_recognised(ids):
    assert refused(loss=loss(noised(0.5, ids), lambda batch: batch.inputs))


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": loss(noised(0.5), lambda batch: batch.targets)},  # words dropped, the next token asked for
        {"train_batches": rows(own, 0.8, follow=True)},
        {
            "train_batches": lambda seed: (
                b._replace(inputs=mx.zeros((B, T), mx.int32)) for b in batches(seed)
            )
        },
        {"train_batches": lambda seed: (b._replace(targets=b.inputs) for b in batches(seed))},
        {},
    ],
)
def test_the_next_token_and_mistakes_of_it_are_not(fields):
    assert not refused(**fields)
