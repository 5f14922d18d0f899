"""From the options of `mlxstories train` to what is trained: stories, model, recipe and length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxstories.cli.sections import MODEL
from mlxstories.errors import StoriesError

SLOWER = 0.3  # of the recipe's learning rate, where weights are trained on that know something already
# options that belong to the model of --from; dropout is of the training
_OF_THE_MODEL = {*MODEL, "tokenizer", "vocab_size"} - {"dropout"}


@dataclasses.dataclass
class Parts:
    """What a new training is made of; ``weights`` are those it begins with, or None for random ones."""

    dataset: Any
    shape: Any
    phase: Any
    training: Any
    weights: Any = None
    begun: dict[str, Any] | None = None


def parts(
    say: Callable[[str], None],
    given: set[str],
    changes: Mapping[str, Any],
    *,
    data,
    model,
    phase,
    repair,
    max_repairs,
    start,
    runs,
    processes,
    stop_after,
    **training,
) -> Parts:
    """The parts of a new training.

    Args:
        say: is told in a line what was chosen, and why.
        given: options that were given; others take what suits a text of one's own.
        changes: fields of the phase that were given.
        start: a run or an exported model to go on from, or None.
        processes: that share a batch, of which a chosen number of rows is a multiple.
    """
    from mlxstories.data.dataset import load_dataset
    from mlxstories.model import MlxLmConfig
    from mlxstories.model.mlx_lm import PREFIX
    from mlxstories.optim import build_schedule

    known = starting_point(start, runs, given) if start else None
    if changes and isinstance(data.source, str):
        given = given | {"phase"}  # fields of the plain recipe are meant
    if known:
        given = given | _OF_THE_MODEL
    foreign = isinstance(known.shape, MlxLmConfig) if known else model.get("arch", "").startswith(PREFIX)
    if foreign:
        given = given | {"dropout"}  # which mlx-lm's architectures do not have
    given = given | ({"epochs"} if "steps" in given else set())  # which go before them

    def decided(chosen: Mapping[str, Any], vocab_size: int):
        """Recipe, length and shape with what was chosen; a StoriesError where they do not fit together."""
        recipe = _recipe(phase, chosen, changes, slower=known is not None)
        config = _training(
            {**training, "stop_after": stop_after}, chosen, processes, max_repairs if repair else 0
        )
        if config.steps:
            build_schedule(recipe.schedule, recipe.optimizer.learning_rate, config.steps)
        if known is None:
            return recipe, config, _shape(model, recipe, chosen, vocab_size)
        shape, dropout = known.shape, chosen.get("dropout", model.get("dropout"))
        if dropout is not None:
            shape = dataclasses.replace(shape, dropout=dropout)
        return recipe, config, shape

    _require_one(lambda chosen: decided(chosen, data.vocab_size), _choices(given, data))
    texts, chosen, told = _chosen(given, data)
    recipe, config, shape = decided(chosen, data.vocab_size)
    for line in told:
        say(line)
    data = dataclasses.replace(
        data, **{name: chosen[name] for name in ("tokenizer", "vocab_size", "stories") if name in chosen}
    )
    if known:
        dataset = load_dataset(known.described(data), known.tokenizer, texts)
        return Parts(dataset, shape, recipe, config, known.weights, known.origin)
    dataset = load_dataset(data, texts=texts)
    shape = _shape(model, recipe, chosen, dataset.tokenizer.vocab_size)
    return Parts(dataset, shape, recipe, config)


def _training(options: Mapping[str, Any], chosen: Mapping[str, Any], processes: int, max_repairs: int):
    """Length and batches, of what was given and chosen."""
    from mlxstories.training.config import TrainingConfig

    options = {**options, **{name: chosen[name] for name in ("epochs", "stop_after") if name in chosen}}
    if "batch_size" in chosen:
        options["batch_size"] = -(-chosen["batch_size"] // processes) * processes
    return TrainingConfig(
        **{**options, "stop_after": options["stop_after"] or None, "max_repairs": max_repairs}
    )


def _shape(model: Mapping[str, Any], phase, chosen: Mapping[str, Any], vocab_size: int):
    """The model's shape, of what was given and chosen."""
    from mlxstories.data.tokenizer import END
    from mlxstories.model import shaped

    parts = {
        **model,
        **{name: chosen[name] for name in ("size", "layers", "context", "dropout") if name in chosen},
    }
    separator = None if parts.pop("across_stories") else END
    ours = {**phase.parts(parts.get("arch", "decoder")), "separator": separator}
    return shaped(parts.pop("size"), vocab_size, parts, ours)


def _require_one(decided: Callable[[Mapping[str, Any]], Any], choices: list[dict[str, Any]]) -> None:
    """Raises a StoriesError if what was given goes with none of what may be chosen."""
    *others, last = choices
    for chosen in others:
        with suppress(StoriesError):
            decided(chosen)
            return
    decided(last)


def _choices(given: set[str], data) -> list[dict[str, Any]]:
    """All that may be chosen, as known before any text is read."""
    from mlxstories.data.dataset import is_prepared
    from mlxstories.training.recommended import ROWS

    if takes_record(data, given):
        return [_record(given)]
    if isinstance(data.source, str) or is_prepared(data):
        return [{}]
    return [_left(row.values(), given) for row in ROWS]


def _left(values: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in given}


def _chosen(given: set[str], data):
    """The texts of one's own, read, or None; by option, of what was not given, what suits them or, on the built-in
    stories, holds the record; and what to say of it."""
    from mlxstories.data.dataset import is_prepared
    from mlxstories.data.folder import remarks
    from mlxstories.data.texts import read_texts
    from mlxstories.training.recommended import recommended

    if takes_record(data, given):
        chosen = _record(given)
        return None, chosen, [_recorded(chosen)]
    if isinstance(data.source, str) or is_prepared(data):
        return None, {}, []
    told = [f"{remark}." for remark in remarks(data.source, separator=data.separator)]
    texts = read_texts(data)
    found = recommended(texts.train)
    chosen = _left(found.row.values(), given)
    return texts, chosen, [*told, in_a_line(found, chosen)] if chosen else told


def takes_record(data, given: set[str]) -> bool:
    """Whether the recipe is the one that holds the record on the built-in stories, for none was given."""
    return data.source == "stories" and "phase" not in given


def _record(given: set[str]) -> dict[str, Any]:
    """What holds the record on the built-in stories, but for what was given."""
    from mlxstories.training.phases import RECORD

    return _left(RECORD, given | ({"layers"} if "size" in given else set()))


def _recorded(chosen: Mapping[str, Any]) -> str:
    told = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in chosen.items()
    )
    return (
        f"The built-in stories, by the recipe that learns them soonest (docs/speedrun.md): {told}. "
        "--phase 1 is the plain recipe, and --data FOLDER trains on texts of yours."
    )


def _recipe(phase, chosen: Mapping[str, Any], changes: Mapping[str, Any], *, slower: bool):
    """The phase that was given, or the chosen one with the changes that were."""
    from mlxstories.training.phases import PHASES, SPEEDRUN, override, refuse_fields_without_effect, with_rate

    if "phase" in chosen:
        decay = {"optimizer.weight_decay": chosen["weight_decay"]} if "weight_decay" in chosen else {}
        named = SPEEDRUN if chosen["phase"] == SPEEDRUN.name else PHASES[chosen["phase"]]
        phase = override(named, {**decay, **changes})
    if slower and "optimizer.learning_rate" not in changes:
        phase = override(phase, with_rate(phase, SLOWER * phase.optimizer.learning_rate) | dict(changes))
    refuse_fields_without_effect(phase, changes)
    return phase


def in_a_line(found, chosen: Mapping[str, Any]) -> str:
    """What was chosen for a text of one's own, and why."""
    words = {
        "size": "size {}",
        "tokenizer": "{} tokens",
        "vocab_size": "vocabulary {:,}",
        "context": "context {}",
        "epochs": "{} epochs",
        "batch_size": "batches of {} rows",
        "dropout": "dropout {:g}",
        "weight_decay": "weight decay {:g}",
        "phase": "phase {}",
    }
    choice = ", ".join(form.format(chosen[name]) for name, form in words.items() if name in chosen)
    choice = choice.replace("batches of 1 rows", "batches of 1 row")
    told = (
        f"{found.row.because}, so {choice}. Options that you give take precedence."
        if choice
        else found.row.because + "."
    )
    return (
        f"{found.characters:,} characters to train on, {found.distinct:,} distinct words, stories of about "
        f"{found.story:,} characters: {told}"
    )


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """A model to go on from, and where it came from."""

    shape: Any
    tokenizer: Any
    weights: Any
    origin: dict[str, Any]

    def described(self, data):
        """``data`` with the tokenizer that goes with the model."""
        return dataclasses.replace(data, tokenizer=self.tokenizer.kind, vocab_size=self.tokenizer.vocab_size)


def starting_point(name: str, runs: Path, given: set[str]) -> StartingPoint:
    """The best weights of a run, or those of an exported model, with their tokenizer.

    Raises:
        StoriesError: there is no such model, or an option asks for another one.
    """
    from mlxstories.export.read import is_exported, read_model
    from mlxstories.model import MlxLmConfig
    from mlxstories.model.mlx_lm import refuse_parts
    from mlxstories.runs.checkpoints import load_model
    from mlxstories.runs.directory import find_run

    if clash := sorted(given & _OF_THE_MODEL):
        option = "--" + clash[0].replace("_", "-")
        raise StoriesError(f"{option} belongs to the model of --from {name}: leave one of the two out")
    model: Any
    origin: dict[str, Any]
    if is_exported(Path(name)):
        model, tokenizer = read_model(Path(name))
        origin = {"directory": name}
    else:
        run = find_run(name, runs)
        best = run.checkpoint("best")
        model, tokenizer, _ = load_model(run, best)
        origin = {"directory": str(run.path), "step": best.step}
    if isinstance(model.config, MlxLmConfig):
        refuse_parts(model.config.architecture, given & {"dropout"})
    return StartingPoint(model.config, tokenizer, model.parameters(), origin)
