"""Faults of evaluation: a sound model, wrongly measured."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxstories.faults.fault import Faults, change, shape
from mlxstories.faults.optimisation import stepping
from mlxstories.faults.recipe import Recipe, evaluate

FAULTS = Faults("evaluation and generation")


def evaluation(name: str, code: str, description: str):
    """Decorator: a function (logits, batch) -> (loss, accuracy) of a batch, averaged over batches."""

    def register(measure):
        def wrong(model, batches):
            model.eval()
            measured = [[float(value) for value in measure(model(batch.inputs), batch)] for batch in batches]
            losses, accuracies = zip(*measured, strict=True)
            return {"loss": sum(losses) / len(losses), "accuracy": sum(accuracies) / len(accuracies)}

        FAULTS.add(name, code, description, change(evaluate=wrong))
        return measure

    return register


def nats_of(logits, batch, **options):
    nats = nn.losses.cross_entropy(logits.astype(mx.float32), batch.targets, **options)
    return (nats * batch.mask).sum() / batch.mask.sum()


def hits_of(logits, batch):
    return mx.argmax(logits, axis=-1) == batch.targets


def accuracy_of(logits, batch):
    return (hits_of(logits, batch) * batch.mask).sum() / batch.mask.sum()


@evaluation("padding-counts-as-right", "padding-in-accuracy", "padding counts as predicted correctly")
def _(logits, batch):
    return nats_of(logits, batch), ((hits_of(logits, batch) * batch.mask) + (1 - batch.mask)).mean()


@evaluation("padding-averaged", "padding-in-accuracy", "validation averages over padding too")
def _(logits, batch):
    nats = nn.losses.cross_entropy(logits, batch.targets)
    return nats.mean(), hits_of(logits, batch).mean()


@evaluation(
    "validation-smoothed",
    "smoothed-validation-loss",
    "the validation loss is smoothed by 0.1 like training's",
)
def _(logits, batch):
    return nats_of(logits, batch, label_smoothing=0.1), accuracy_of(logits, batch)


@evaluation("bits-for-nats", "metric-mismatch", "the loss is in bits")
def _(logits, batch):
    return nats_of(logits, batch) / math.log(2), accuracy_of(logits, batch)


@evaluation("perplexity-for-loss", "metric-mismatch", "the perplexity is reported as the loss")
def _(logits, batch):
    return mx.exp(nats_of(logits, batch)), accuracy_of(logits, batch)


@evaluation(
    "accuracy-over-time", "metric-mismatch", "the argmax is taken over time instead of the vocabulary"
)
def _(logits, batch):
    best = mx.argmax(logits, axis=1)[:, : batch.targets.shape[1]]
    return nats_of(logits, batch), (
        (best == batch.targets[:, : best.shape[1]]) * batch.mask[:, : best.shape[1]]
    ).mean()


def summed(model, batches):
    batches = list(batches)
    right = evaluate(model, batches)
    return {"loss": right["loss"] * len(batches), "accuracy": right["accuracy"]}


def first_batch_only(model, batches):
    return evaluate(model, list(batches)[:1])


def bits_per_token(model, batches):
    right = evaluate(model, batches)
    return {**right, "bits_per_byte": right["loss"] / math.log(2)}


FAULTS.add(
    "bits-per-token",
    "metric-mismatch",
    "bits per token are reported as bits per byte",
    change(evaluate=bits_per_token),
    severity="warning",
)


class WithoutSwitch:
    """A model whose ``eval`` is never reached."""

    def __init__(self, model):
        self.model = model

    def eval(self):
        pass

    def __call__(self, tokens):
        return self.model(tokens)


def without_eval(model, batches):
    return evaluate(WithoutSwitch(model), batches)


def in_training_mode(model, batches):
    model.train()
    return without_eval(model, batches)


FAULTS.add(
    "losses-summed", "metric-mismatch", "batch losses are added up and not averaged", change(evaluate=summed)
)
FAULTS.add(
    "first-batch-only",
    "metric-mismatch",
    "validation stops after its first batch",
    change(evaluate=first_batch_only),
)


def dropout(share: float, plant):
    return lambda recipe: plant(shape(dropout=share)(recipe))


FAULTS.add(
    "dropout-in-validation",
    "dropout-in-evaluation",
    "model.train() is called before validation",
    dropout(0.2, change(evaluate=in_training_mode)),
)


FAULTS.add(
    "eval-forgotten",
    "dropout-in-evaluation",
    "validation never calls model.eval()",
    dropout(0.2, change(evaluate=without_eval)),
)


def evaluating_traced(recipe: Recipe) -> Recipe:
    """Validation through forward passes that were traced once for each model, its weights among the constants."""
    traced: dict[int, tuple] = {}

    def forward(model):
        if id(model) not in traced:
            traced[id(model)] = model, mx.compile(lambda tokens: model(tokens))
        return traced[id(model)][1]

    class Traced:
        def __init__(self, model):
            self.model = model

        def eval(self):
            self.model.eval()

        def __call__(self, tokens):
            return forward(self.model)(tokens)

    return change(evaluate=lambda model, batches: evaluate(Traced(model), batches))(recipe)


FAULTS.add(
    "validation-traced-once",
    "stale-computation",
    "validation runs a compiled forward pass that holds the weights of its first call",
    evaluating_traced,
)


def halving(model, batches):
    model.update(tree_map(lambda weight: 0.5 * weight, model.parameters()))
    return evaluate(model, batches)


FAULTS.add(
    "validation-leaves-other-weights",
    "evaluation-changes-state",
    "the weights are shrunk for validation and not put back",
    change(evaluate=halving),
)


def one_buffer(cleared: bool):
    """A plant of a step and a validation that add their losses to one buffer."""

    def plant(recipe: Recipe) -> Recipe:
        losses = {"sum": 0.0}

        def step(model, optimizer, batch, recipe):
            loss, gradients = nn.value_and_grad(model, recipe.loss)(model, batch)
            optimizer.update(model, gradients)
            told, losses["sum"] = losses["sum"] + loss, 0.0
            return told

        def validate(model, batches):
            found = evaluate(model, batches)
            losses["sum"] += 0.0 if cleared else found["loss"]
            return found

        return change(evaluate=validate)(stepping(step)(recipe))

    return plant


FAULTS.add(
    "losses-left-over",
    "evaluation-changes-state",
    "validation leaves its loss in a buffer, and the next step tells it with its own (llm.c commit d2f06ae)",
    one_buffer(cleared=False),
)
