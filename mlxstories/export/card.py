"""The model card: what the model was trained on, how, what it reached, and how to use it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2

from mlxstories.data.config import DataConfig
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import from_dict, read_json
from mlxstories.training.phases import Phase

_SOURCES = {
    "stories": "the built-in stories of mlxstories, whose entropy is known",
    "tinystories": "[TinyStories](https://huggingface.co/datasets/roneneldan/TinyStories)",
}


def scores(run: Run, step: int) -> dict[str, Any]:
    """Loss and accuracy on held-out stories after ``step``, and the tokens trained on; empty if unknown."""
    measured = [m for m in run.metrics() if m["step"] == step and m["split"] == "val"]
    kept = ("loss", "bits_per_character", "accuracy", "tokens")
    return {name: measured[-1].get(name) for name in kept} if measured else {}


def card(run: Run, name: str, described: dict[str, Any], tokenizer: Tokenizer) -> str:
    """The text of ``README.md``.

    Args:
        name: of the exported directory.
        described: the contents of its ``config.json``.
    """
    own = described["mlxstories"]
    checkpoint = own["checkpoint"]
    data, phase = (
        own.get(name) and from_dict(cls, own[name], f"{run.path}/config.json, {name}")
        for name, cls in (("data", DataConfig), ("phase", Phase))
    )
    finished = run.path / "result.json"
    result = read_json(finished) if finished.is_file() else {}
    if not isinstance(result, dict):
        raise StoriesError(f"{finished} is not the result of a run: the file is damaged.")
    if result.get("best_step", result.get("steps")) != checkpoint["step"]:
        result = {**result, "by_kind": {}}  # measured on other weights
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files(__package__).joinpath("card.md.jinja").read_text("utf-8"))
    try:
        return template.render(
            name=name,
            run=own,
            shape=described,
            tokenizer=tokenizer,
            data=data,
            source=data and _source(data.source),
            phase=phase,
            floor=own.get("floor") or {},
            checkpoint=checkpoint,
            by_kind=result.get("by_kind", {}),
            samples=result.get("samples", [])[:1],
            context=own["model"]["context"],
        )
    except (jinja2.TemplateError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise StoriesError(
            f"a file of {run.path} holds an unexpected value ({error}): it is damaged."
        ) from error


def _source(source: str | tuple[str, ...]) -> str:
    """Where the stories came from; of files the names alone, since a card is public."""
    if isinstance(source, str):
        return _SOURCES[source]
    return "stories of " + ", ".join(
        path.replace("\\", "/").rstrip("/").rpartition("/")[2] for path in source
    )
