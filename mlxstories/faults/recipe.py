"""The built-in recipe as a subject: real data, model, phase 1 and decoding, each part replaceable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer

from mlxstories.batch import Batch
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.packing import Documents, Rows, pack
from mlxstories.ladder.own_training import UPDATES, Update, mean_objective, scheduled_optimizer
from mlxstories.ladder.subject import Subject
from mlxstories.model import KVCache, MlxLmConfig, ModelConfig, Transformer, size_config
from mlxstories.training.losses import next_token, next_token_metrics
from mlxstories.training.phases import PHASE_1, Phase

STORIES, VALIDATION, CONTEXT, BATCH_SIZE = 1000, 64, 144, 8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the built-in stories are trained on.

    Attributes:
        tokenizer: of train_texts; its ids are those of the documents.
        train_texts, val_texts: the stories.
        train, val: the stories as tokens.
        floor: entropy of the story source, nats per token.
        config: the model's shape.
        phase: optimiser, schedule and clipping.
        updates: length of the run, in optimiser updates.
        build_model: of a configuration.
        build_optimizer: of a phase and the updates of the run.
        arrange: documents to rows of ``config.context``, shuffled when a generator is given.
        collate: the last touch on a batch.
        objective: what training minimises, as `mlxstories.training.losses.objective` returns it.
        make_step: of a recipe: (model, optimizer, batch) -> loss of one update; by default the one that `train` makes.
        evaluate: (model, batches) -> loss and accuracy.
        generate: (model, prompt, n) -> greedy continuation.
    """

    tokenizer: object
    train_texts: Sequence[str]
    val_texts: Sequence[str]
    train: Documents
    val: Documents
    floor: float
    config: ModelConfig | MlxLmConfig
    phase: Phase = PHASE_1
    updates: int = UPDATES
    build_model: Callable[[ModelConfig], nn.Module] = Transformer
    build_optimizer: Callable[[Phase, int], Optimizer]
    arrange: Callable[[Documents, int, np.random.Generator | None], Rows]
    collate: Callable[[Batch], Batch]
    objective: Callable
    make_step: Callable[[Recipe], Callable]
    evaluate: Callable
    generate: Callable

    def loss(self, model: nn.Module, batch: Batch) -> mx.array:
        """What an update minimises, in nats per real token."""
        return mean_objective(self.objective, self.phase)(model, batch)

    def batches(self, documents: Documents, rng: np.random.Generator | None) -> Iterator[Batch]:
        """One epoch; a last batch that is not full is left out in training."""
        rows = self.arrange(documents, self.config.context, rng)
        for start in range(0, len(rows.inputs), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            if rng is None or len(rows.inputs[part]) == BATCH_SIZE:
                arrays = (rows.inputs[part], rows.targets[part], rows.mask[part])
                yield self.collate(Batch(*(mx.array(array) for array in arrays)))

    def subject(self, name: str = "built-in recipe") -> Subject:
        """The recipe as the ladder sees it."""
        return Subject(
            name=name,
            model=lambda: self.build_model(self.config),
            vocab_size=self.config.vocab_size,
            train_batches=lambda seed: self.batches(self.train, np.random.default_rng(seed)),
            val_batches=lambda: self.batches(self.val, None),
            loss=self.loss,
            optimizer=lambda: self.build_optimizer(self.phase, self.updates),
            train_step=self.make_step(self),
            evaluate=self.evaluate,
            generate=self.generate,
            tokenizer=self.tokenizer,
            train_texts=self.train_texts,
            val_texts=self.val_texts,
            floor=self.floor,
            updates=self.updates,
        )


def built_in(seed: int = 0, fault: str | None = None) -> Subject:
    """The built-in recipe, healthy or with a fault planted in it.

    Raises:
        StoriesError: there is no fault of this name.
    """
    if fault is None:
        return healthy(seed).subject()
    from mlxstories.faults import find

    return find(fault).plant(healthy(seed)).subject(f"built-in recipe with {fault}")


@cache
def healthy(seed: int = 0) -> Recipe:
    """Phase 1 on a thousand built-in stories, one story a row, with the 2 x 64 debugging model."""
    dataset = load_dataset(DataConfig(stories=STORIES, validation=VALIDATION, tokenizer="word", seed=seed))
    return Recipe(
        tokenizer=dataset.tokenizer,
        train_texts=dataset.train_texts,
        val_texts=dataset.val_texts,
        train=dataset.train,
        val=dataset.val,
        floor=dataset.floor.nats,
        config=size_config("debug", dataset.tokenizer.vocab_size, context=CONTEXT),
        build_optimizer=scheduled_optimizer,
        arrange=padded_rows,
        collate=lambda batch: batch,
        objective=next_token,
        make_step=lambda recipe: Update(recipe.objective, recipe.phase),
        evaluate=evaluate,
        generate=generate,
    )


def padded_rows(documents: Documents, context: int, rng: np.random.Generator | None) -> Rows:
    """One story a row, or a piece of a long one."""
    return pack(documents, context, layout="padded", rng=rng)


def evaluate(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """Loss in nats and accuracy, both per real token, dropout off."""
    model.eval()
    sums = [next_token_metrics(model(batch.inputs), batch.targets, batch.mask) for batch in batches]
    _, tokens, hits, nats = (sum(float(value) for value in column) for column in zip(*sums, strict=True))
    return {"loss": nats / tokens, "accuracy": hits / tokens}


def generate(model: Transformer, prompt: list[int], n: int) -> list[int]:
    """Greedy continuation through the key-value cache, as far as the context reaches."""
    model.eval()
    cache, tokens, told = KVCache(model.config, 1), mx.array([prompt]), []
    for _ in range(min(n, model.config.context - len(prompt))):
        best = mx.argmax(model(tokens, cache)[:, -1], axis=-1, keepdims=True)
        tokens = best.astype(mx.int32)
        told.append(int(best.item()))
    return told
