"""The model card: what the model was trained on, how, what it reached, and how to use it."""

from __future__ import annotations

import json
import shlex
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

_WORDS, _CHARACTERS = 4, 24  # of a prompt


def scores(run: Run, step: int) -> dict[str, Any]:
    """Loss and accuracy on held-out stories after ``step``, and the tokens trained on; empty if unknown."""
    measured = [m for m in run.metrics() if m["step"] == step and m["split"] == "val"]
    kept = ("loss", "bits_per_character", "accuracy", "tokens")
    return {name: measured[-1].get(name) for name in kept} if measured else {}


def beginning(run: Run) -> str:
    """A prompt to try: of texts of one's own how the first story begins that the run told when it ended."""
    told = _result(run).get("samples")
    data = run.config.get("data")
    own = isinstance(data, dict) and not isinstance(data.get("source"), str)
    if own and isinstance(told, list) and told and isinstance(told[0], str):
        line = told[0].strip().partition("\n")[0]
        words = " ".join(line.split()[:_WORDS])[:_CHARACTERS].strip()
        if words and words.isprintable() and "\N{REPLACEMENT CHARACTER}" not in words:
            return words
    return "Once upon a time"


def in_shell(prompt: str) -> str:
    """A prompt as a word of a command."""
    return shlex.quote(prompt) if set(prompt) & set('"$`\\!') else f'"{prompt}"'


def _result(run: Run) -> dict[str, Any]:
    """What the run ended with; empty if it has not ended."""
    finished = run.path / "result.json"
    result = read_json(finished) if finished.is_file() else {}
    if not isinstance(result, dict):
        raise StoriesError(f"{finished} is not the result of a run: the file is damaged.")
    return result


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
    result, prompt = _result(run), beginning(run)
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
            prompt=in_shell(prompt),
            prompt_in_python=json.dumps(prompt, ensure_ascii=False),
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
