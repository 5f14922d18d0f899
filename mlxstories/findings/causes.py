"""The table of causes: what can be wrong, in which part of a setup, and what else it brings about."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property

STAGES = ("subject", "data", "model", "loss", "weights", "step", "rate", "evaluation", "generation", "result")
"""From the ground up: a cause of an earlier stage explains better than one of a later stage."""

PARTS = ("data", "model", "loss", "step", "evaluation", "generation")
"""What a training setup consists of, and can be exchanged piece by piece."""

# What goes wrong in training when something before it is wrong.
DYNAMICS = {
    "clipping-too-tight",
    "weight-decay-too-large",
    "no-bias-correction",
    "learning-rate-too-large",
    "learning-rate-too-small",
}
SIGNALS = {"not-finite", "exploding-gradient", "vanishing-gradient", "dead-parameters"}
VALIDATION = {"dropout-in-evaluation", "smoothed-validation-loss", "padding-in-accuracy", "metric-mismatch"}
DECODING = {"cache-mismatch", "generation-mismatch"}
SIGHT = {"batch-leak", "future-leak", "length-dependent", "context-cut", "input-blind", "position-blind"}
EVERYTHING = {"everything"}


@dataclass(frozen=True)
class Cause:
    """One thing that can be wrong.

    Attributes:
        code: its name, in kebab case.
        stage: one of `STAGES`; causes of one stage rank in the order of the table.
        part: one of `PARTS`, where the mistake lies.
        meaning: half a sentence.
        explains: codes of other errors that it brings about; all of the stage "result" follow from any error.
    """

    code: str
    stage: str
    part: str
    meaning: str
    explains: Set[str] = frozenset()

    @cached_property
    def priority(self) -> tuple[int, int]:
        """Sorts causes before consequences."""
        return STAGES.index(self.stage), CAUSES.index(self)

    @cached_property
    def brings_about(self) -> frozenset[str]:
        """Codes of the errors that follow from this one."""
        return frozenset(CATALOGUE if "everything" in self.explains else self.explains)


# fmt: off
CAUSES: tuple[Cause, ...] = (
    Cause("subject-error", "subject", "data", "the subject's own code raised, hung or returned something unusable"),
    Cause("token-out-of-range", "subject", "data", "a token id lies outside the vocabulary or an embedding table",
          EVERYTHING),

    Cause("tokenizer-mismatch", "data", "data", "the batches were not made by this tokenizer from these texts",
          {"high-unknown-rate"}),
    Cause("high-unknown-rate", "data", "data", "too many words are unknown to the tokenizer"),
    Cause("constant-batches", "data", "data", "training sees the same batch or row again and again",
          DYNAMICS | {"dead-parameters", "train-val-overlap"}),
    Cause("targets-not-shifted", "data", "data", "the targets are the inputs themselves",
          DYNAMICS | {"position-blind", "train-val-overlap"}),
    Cause("targets-mismatched", "data", "data", "the targets are not the tokens that follow the inputs",
          DYNAMICS | {"loss-sign", "padding-in-accuracy", "padding-in-loss"}),
    Cause("padding-in-loss", "data", "data", "padding counts as real tokens in the training loss",
          DYNAMICS | {"padding-in-accuracy"}),
    Cause("end-never-trained", "data", "data", "the token that ends a text is never a target that counts"),
    Cause("texts-never-seen", "data", "data", "a large part of the texts never reaches a batch, or never counts there",
          DYNAMICS),
    Cause("train-val-overlap", "data", "data", "validation holds what training has seen"),

    Cause("not-finite", "model", "model", "a logit, loss or gradient is NaN or infinite", EVERYTHING),
    Cause("not-repeatable", "model", "model", "the same input gives other logits each time in evaluation mode",
          DYNAMICS | DECODING | VALIDATION | SIGHT),
    Cause("batch-leak", "model", "model", "a row's logits depend on other rows of the batch",
          DYNAMICS | DECODING | VALIDATION | SIGHT - {"batch-leak"}),
    Cause("buffer-trained", "model", "model", "training changes a mask or table that is no weight",
          DYNAMICS | DECODING | {"future-leak"}),
    Cause("future-leak", "model", "model", "a position's logits depend on later tokens",
          DYNAMICS | DECODING | {"length-dependent", "context-cut", "input-blind", "position-blind"}),
    Cause("length-dependent", "model", "model", "the same tokens give other logits in a longer row",
          DYNAMICS | DECODING | {"position-blind"}),
    Cause("input-blind", "model", "model", "the logits ignore the tokens they should depend on",
          DYNAMICS | SIGNALS | DECODING | {"bad-initialization", "position-blind", "context-cut"}),
    Cause("position-blind", "model", "model", "the order of earlier tokens makes no difference",
          DYNAMICS | {"cache-mismatch", "dead-parameters"}),

    Cause("wrong-loss", "loss", "loss", "the loss asks for something else than the targets",
          DYNAMICS | VALIDATION | {"padding-in-loss", "rows-ignored", "loss-sign", "not-finite"}),
    Cause("loss-sign", "loss", "loss", "training climbs the loss instead of descending it", DYNAMICS | SIGNALS),
    Cause("double-softmax", "loss", "loss", "a softmax is applied twice",
          DYNAMICS | SIGNALS | VALIDATION | {"bad-initialization", "bounded-logits"}),
    Cause("bounded-logits", "loss", "model", "the logits run into a bound, or cannot be far enough apart to be sure",
          DYNAMICS | SIGNALS),

    Cause("wrong-normalisation", "loss", "loss", "the loss is divided by something else than the tokens that count"),

    Cause("bad-initialization", "weights", "model", "the initial weights make learning needlessly hard or impossible",
          DYNAMICS | SIGNALS),
    Cause("extreme-scale", "weights", "model", "scores, norms or the residual stream start at an absurd scale",
          DYNAMICS | SIGNALS),
    Cause("exploding-gradient", "weights", "model", "gradients grow without bound through the layers or over the steps",
          DYNAMICS | {"dead-parameters", "not-finite", "vanishing-gradient"}),
    Cause("vanishing-gradient", "weights", "model", "gradients all but disappear on the way to the early layers",
          DYNAMICS | {"dead-parameters", "no-update", "context-cut"}),
    Cause("context-cut", "weights", "model", "a position does not see the tokens right before it",
          DYNAMICS | DECODING),
    Cause("dead-parameters", "weights", "model", "trainable parameters never receive a gradient",
          DYNAMICS | {"frozen-parameters", "no-update"}),
    Cause("backward-mismatch", "weights", "model", "the backward pass is not the derivative of the forward pass",
          DYNAMICS | {"gradient-mismatch"}),
    Cause("without-effect", "weights", "model", "weights with a gradient, positions or a layer's result move no logit",
          DYNAMICS | {"frozen-parameters"}),
    Cause("residual-left-out", "weights", "model", "a branch takes the place of the stream that it should be added to"),
    Cause("tie-broken", "weights", "model", "weights meant to be one are two parameters that part at once"),
    Cause("base-not-frozen", "weights", "model", "the base is trained beside the adapters attached to it"),
    Cause("dropout-too-high", "weights", "model", "dropout takes away nearly everything, or some of the stream itself",
          DYNAMICS),
    Cause("missing-nonlinearity", "weights", "model", "linear layers with nothing between them are one linear layer"),
    Cause("precision-promoted", "weights", "model", "a model of 16 bits computes in float32"),
    Cause("frozen-parameters", "weights", "model", "parameters stay at their random initial values",
          DYNAMICS | {"dead-parameters", "no-update", "hidden-parameters"}),
    Cause("hidden-parameters", "weights", "model", "random weights lie outside of what is trained and saved",
          DYNAMICS),

    Cause("rows-ignored", "step", "step", "part of each batch has no influence on the update",
          DYNAMICS | {"constant-batches", "gradient-mismatch"}),
    Cause("stale-computation", "step", "step", "the step, validation or decoding does not follow the weights",
          DYNAMICS | SIGNALS | DECODING | VALIDATION
          | {"gradient-mismatch", "no-update", "state-not-kept", "frozen-parameters"}),
    Cause("gradient-mismatch", "step", "step", "what reaches the optimiser is not the gradient of the loss",
          DYNAMICS | SIGNALS | {"frozen-parameters", "no-update", "loss-sign"}),
    Cause("replicas-diverge", "step", "step", "copies of one weight take different steps"),
    Cause("frozen-randomness", "step", "step", "dropout takes away the same units at every step", DYNAMICS),
    Cause("update-below-precision", "step", "step", "updates are smaller than the precision of the weights",
          DYNAMICS | {"frozen-parameters", "no-update"}),
    Cause("no-update", "step", "step", "a training step changes nothing", DYNAMICS | SIGNALS),
    Cause("state-not-kept", "step", "step", "the optimiser starts from nothing at every step", DYNAMICS),
    Cause("extreme-constants", "step", "step", "a constant of the recipe lies far outside what trains", DYNAMICS),
    Cause("clipping-too-tight", "step", "step", "gradients are clipped to a small part of their length", DYNAMICS),
    Cause("warmup-too-long", "step", "step", "the learning rate is still warming up when training ends", DYNAMICS),
    Cause("schedule-out-of-step", "step", "step",
          "the schedule ends long before, or long after, training does, or its pieces do not meet", DYNAMICS),
    Cause("weight-decay-too-large", "step", "step", "weight decay outweighs the gradients", DYNAMICS),
    Cause("no-bias-correction", "step", "step", "Adam's first steps are mis-scaled for lack of bias correction",
          DYNAMICS),

    Cause("learning-rate-too-large", "rate", "step", "a smaller learning rate does far better", DYNAMICS | SIGNALS),
    Cause("learning-rate-too-small", "rate", "step", "a larger learning rate does far better", DYNAMICS),

    Cause("evaluation-changes-state", "evaluation", "evaluation",
          "validating or decoding leaves the model, or a random state that data are drawn with, changed",
          VALIDATION | DECODING),
    Cause("dropout-in-evaluation", "evaluation", "evaluation", "dropout stays on during validation", VALIDATION),
    Cause("smoothed-validation-loss", "evaluation", "evaluation", "label smoothing is part of the validation loss",
          VALIDATION),
    Cause("padding-in-accuracy", "evaluation", "evaluation", "padding counts as real tokens in validation",
          VALIDATION),
    Cause("metric-mismatch", "evaluation", "evaluation",
          "the subject's validation differs from the loss and accuracy recomputed"),

    Cause("cache-mismatch", "generation", "generation",
          "decoding with the cache departs from the model's own predictions"),
    Cause("generation-mismatch", "generation", "generation", "greedy decoding is not the model's argmax",
          {"cache-mismatch"}),

    Cause("behind-reference", "result", "model",
          "a plain part in its place, or a small change inside it, trains far better on the same batches"),
    Cause("ahead-of-reference", "result", "model",
          "the model learns far more from the same batches than a plain one of its size"),
    Cause("too-good-to-be-true", "result", "step", "the result is better than any honest model can reach"),
    Cause("cannot-overfit", "result", "step", "even a handful of stories cannot be memorised"),
    Cause("no-better-than-unigram", "result", "step", "training learns nothing beyond word frequencies"),
    Cause("overfitting", "result", "step", "validation gets worse while training gets better"),
    Cause("repetition-loop", "result", "step", "greedy text runs into a loop"),
)
# fmt: on

CATALOGUE: Mapping[str, str] = {cause.code: cause.meaning for cause in CAUSES}
"""Code to meaning, causes before consequences."""

_BY_CODE = {cause.code: cause for cause in CAUSES}


def cause_of(code: str) -> Cause:
    """The cause of this code.

    Raises:
        KeyError: there is none.
    """
    return _BY_CODE[code]
