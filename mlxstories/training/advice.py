"""What is worth a word before time is spent: too little text, or a setting far from what has ever worked."""

from __future__ import annotations

from collections.abc import Iterator

from mlxstories.data.dataset import Dataset
from mlxstories.model import MlxLmConfig, ModelConfig
from mlxstories.training.phases import Phase

# Peak rates that these rules are run at here and in their papers (AdamW: Loshchilov and Hutter 2019; Lion: Chen et
# al. 2023; Muon: Jordan et al. 2024).
USUAL_RATES = {"adamw": 1e-3, "adam": 1e-3, "nadamw": 1e-3, "lion": 1e-4, "muon": 2e-2, "sgd": 1e-1}
_FAR = 30  # times the usual rate, up or down
_MOST_DROPOUT = 0.5
_LEAST_TRAINING = 5_000  # tokens
_LEAST_HELD_OUT = 500  # tokens
_PER_TOKEN = 100  # parameters for each token, above which a model is far too large for its text
_MANY = 0.5  # share of the stories
UNKNOWN = 0.02  # share of the held-out words


def advice(
    dataset: Dataset, shape: ModelConfig | MlxLmConfig, parameters: int, phase: Phase
) -> Iterator[str]:
    """Lines on what will hardly work (``warning:``) or is worth knowing (``note:``), each with what would help."""
    optimizer = phase.optimizer
    times = optimizer.learning_rate / USUAL_RATES[optimizer.name]
    if not 1 / _FAR <= times <= _FAR:
        direction, outcome = (
            (f"{times:,.0f} times", "training will hardly stay finite")
            if times > 1
            else (f"1/{1 / times:,.0f} of", "training will hardly move")
        )
        yield (
            f"warning: --lr {optimizer.learning_rate:g} is {direction} what {optimizer.name} usually takes "
            f"({USUAL_RATES[optimizer.name]:g}): {outcome}"
        )
    if getattr(shape, "dropout", 0) > _MOST_DROPOUT:
        yield f"warning: --dropout {shape.dropout:g} drops more than half of all activations: take 0.1 to 0.3"
    tokens, held_out = dataset.train.targets, dataset.val.targets
    if tokens < _LEAST_TRAINING:
        yield (
            f"warning: {tokens:,} tokens are very little text: the model will know parts of it by heart and little "
            "else. More text helps most, or --from a model that can write already"
        )
    elif parameters > _PER_TOKEN * tokens:
        yield (
            f"warning: {parameters:,} parameters are very many for {tokens:,} tokens: a smaller --size learns as much, "
            "and faster"
        )
    if held_out < _LEAST_HELD_OUT:
        more = "--validation N holds out more stories" if len(dataset.train.lengths) > 1 else "give more text"
        yield f"warning: only {held_out:,} held-out tokens make rough figures; {more}"
    long = float((dataset.train.lengths >= shape.context).mean())
    if long > _MANY:
        yield (
            f"note: {'all' if long == 1 else f'{long:.0%} of the'} stories are longer than the context of "
            f"{shape.context} tokens: they are learned in pieces, cut anew in each epoch, and what is told is no "
            f"longer than a piece; --context {2 * shape.context} doubles it"
        )
    unknown = dataset.report["validation"]["unknown_rate"]
    if unknown > UNKNOWN:
        yield (
            f"warning: {unknown:.1%} of the held-out {dataset.tokenizer.kind}s are unknown to the model: "
            "--tokenizer bpe knows every word"
        )
