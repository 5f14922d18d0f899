"""What is compared: training recipes, and models where they belong to the question."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxstories.errors import StoriesError
from mlxstories.model import ModelConfig
from mlxstories.optim.schedules import SCHEDULES
from mlxstories.storage.files import read_text
from mlxstories.storage.serialize import dotted, parse_json
from mlxstories.training.phases import (
    PHASE_1,
    PHASE_2,
    PHASES,
    Phase,
    differences,
    override,
    refuse_fields_without_effect,
    values,
)

_DATA = ("data", "stories", "validation", "tokenizer", "vocab_size", "split", "separator", "seed", "layout")
# The story's five ingredients of phase 2, and the one that its author did not know of.
INGREDIENTS = {
    "label smoothing": ("label_smoothing",),
    "accumulation": ("accumulation",),
    "cosine schedule": ("schedule.name",),
    "betas": ("optimizer.betas",),
    "weight decay": ("optimizer.weight_decay",),
}
_FORM = 'give arms as {"name": {"phase": 1, "field": value}}'
NO_CORRECTION = {"optimizer.bias_correction": False}


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: in tables and figures.
        phase: its training recipe.
        model: fields of `ModelConfig` that differ from the study's model.
    """

    name: str
    phase: Phase
    model: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arch(self) -> str:
        """Whether its loss is over next tokens, as a "decoder", or over masked ones, as an "encoder"."""
        return self.model.get("arch", "decoder")

    def recipe(self) -> dict[str, Any]:
        """The fields of the phase by dotted path, its name apart."""
        return {path: value for path, value in values(self.phase).items() if path != "name"}

    def fields(self) -> dict[str, Any]:
        """Everything by which arms may differ, by dotted path."""
        return self.recipe() | {f"model.{name}": value for name, value in self.model.items()}


def changed(a: Arm, b: Arm) -> dict[str, tuple[Any, Any]]:
    """The fields at which two arms differ, with the value of each; None stands for the study's own."""
    left, right = a.fields(), b.fields()
    paths = dict.fromkeys([*left, *right])
    return {p: (left.get(p), right.get(p)) for p in paths if left.get(p) != right.get(p)}


def phases() -> list[Arm]:
    return [Arm(phase.name, phase) for phase in PHASES.values()]


def schedules() -> list[Arm]:
    """Phase 1 under every schedule, its own first; Noam's peak is set to the same rate."""
    own = PHASE_1.schedule.name
    names = sorted(SCHEDULES, key=lambda name: (name != own, name))
    return [Arm(name.replace("_", " "), override(PHASE_1, {"schedule.name": name})) for name in names]


def archs(names: Iterable[str]) -> list[Arm]:
    """Phase 1 as a causal decoder and as an encoder that fills gaps."""
    return [Arm(name, PHASE_1, {"arch": name}) for name in names]


def ablation() -> list[Arm]:
    """Phases 1 and 2, each ingredient of phase 2 added alone to phase 1 and removed alone from phase 2."""
    between = differences(PHASE_1, PHASE_2)
    covered = {path for paths in INGREDIENTS.values() for path in paths}
    assert covered == set(between), "the ingredients are the differences between the phases"
    arms = [Arm("phase 1", PHASE_1), Arm("phase 2", PHASE_2)]
    for name, paths in INGREDIENTS.items():
        added = {path: between[path][1] for path in paths}
        removed = {path: between[path][0] for path in paths}
        arms.append(Arm(f"phase 1 + {name}", override(PHASE_1, added)))
        arms.append(Arm(f"phase 2 - {name}", override(PHASE_2, removed)))
    for phase in (PHASE_1, PHASE_2):
        arms.append(Arm(f"{phase.name} - bias correction", override(phase, NO_CORRECTION)))
    return arms


def read_arms(path: Path) -> list[Arm]:
    """Arms from a JSON or TOML file of field overrides.

    ``{"slow": {"phase": 1, "optimizer.learning_rate": 3e-4}, "deep": {"phase": 1, "model.layers": 8}}``; in TOML
    a table an arm, nested tables or dotted keys for nested fields.

    Raises:
        StoriesError: the file cannot be read, names an unknown field, or gives arms other data.
    """
    content = _read(path)
    if not isinstance(content, dict) or not all(isinstance(arm, dict) for arm in content.values()):
        raise StoriesError(f"{path}: {_FORM}.")
    if len(content) < 2:
        raise StoriesError(f"{path}: a comparison needs at least 2 arms; got {len(content)}.")
    return [_arm(path, name, dict(dotted(given))) for name, given in content.items()]


def _arm(path: Path, name: str, given: dict[str, Any]) -> Arm:
    where = f"{path}, arm {name!r}"
    if not name or not name.isprintable():  # it stands in tables and figures
        raise StoriesError(f"{where}: give it a name in one line that can be printed.")
    number = given.pop("phase", 1)
    if not isinstance(number, int) or number not in PHASES:
        raise StoriesError(f"{where}: phase must be one of {', '.join(map(str, PHASES))}; got {number!r}.")
    model = {key.removeprefix("model."): given.pop(key) for key in list(given) if key.startswith("model.")}
    for key in given:
        if key.partition(".")[0] in _DATA:
            raise StoriesError(
                f"{where}: {key} would give this arm other data or another tokenizer than the others, and losses "
                "over different tokens cannot be compared. Set it for all arms, by the command's own options."
            )
    known = {item.name for item in dataclasses.fields(ModelConfig)} - {"vocab_size", "context", "separator"}
    for key in model:
        if key not in known:
            raise StoriesError(
                f"{where}: model.{key} cannot differ between arms; what can: {', '.join(sorted(known))}."
            )
    try:
        phase = override(PHASES[number], {key: _tuple(value) for key, value in given.items()})
        refuse_fields_without_effect(phase, given)
    except StoriesError as error:
        raise StoriesError(f"{where}: {error}") from error
    return Arm(name, phase, model)


def _read(path: Path) -> Any:
    try:
        text = read_text(path)
        if path.suffix != ".toml":
            return parse_json(text)
        if sys.version_info < (3, 11):
            raise StoriesError(f"{path}: TOML needs Python 3.11; give JSON.")
        import tomllib

        return tomllib.loads(text)
    except OSError as error:
        raise StoriesError(f"{path} cannot be read: {error.strerror}; {_FORM}, in a file.") from error
    # undecodable text and both syntax errors are ValueErrors
    except (ValueError, RecursionError) as error:
        raise StoriesError(
            f"{path} cannot be read as {'TOML' if path.suffix == '.toml' else 'JSON'} ({error})."
        ) from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
