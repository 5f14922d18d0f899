"""A second look at mutants: `debug --deep` where the list found no error, a longer training where it accused what does
no harm."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from mlxstories.errors import StoriesError
from mlxstories.ladder import Diagnosis
from mlxstories.ladder.exchange import deepened
from mutating.forked import ended_with, forked
from mutating.originals import begun
from mutating.page import RAISES, equivalent, error_of, found_deep, hurting, news
from mutating.setups import Origin, Workplace
from mutating.source import remade
from mutating.trial import loaded, told, trial

LONGER = 4  # times the updates
_CPU = 300  # seconds of one look


@dataclass
class Second:
    """The second looks of a run, written into its outcomes.

    Attributes:
        origins: where its setups come from, by name.
        sample: of the equivalent mutants without an error, how many the exchange sees.
        keep: a folder for what originals show after longer trainings.
        spent: CPU seconds.
    """

    run: dict
    origins: dict[str, Origin]
    sample: int
    keep: Path
    spent: float = 0.0

    def looks(self) -> Iterator[dict]:
        """The outcomes that were looked at, one after the other; those that were before are left as they are."""
        outcomes = self.run["outcomes"]
        if missing := {o["origin"] for o in outcomes} - set(self.origins):
            raise click.UsageError(f"not given, by --zoo, --file or --script: {', '.join(sorted(missing))}")
        with tempfile.TemporaryDirectory() as folder:
            self.places: dict[str, Workplace] = {}
            self.folder = Path(folder).resolve()
            yield from self._each("deep", self._without_error(), self._deep)
            accused = {o["origin"] for o in outcomes if o["mutant"] and o.get("deep")}
            originals = [o for o in outcomes if not o["mutant"] and o["origin"] in accused]
            yield from self._each("deep", originals, self._deep)
            yield from self._each("longer", self._harmless(), self._longer)

    def _each(self, key: str, outcomes: list[dict], look: Callable[[dict], tuple]) -> Iterator[dict]:
        for outcome in outcomes:
            if key not in outcome:
                outcome[key], seconds = look(outcome)
                outcome[f"{key}_seconds"] = seconds
                self.spent += seconds
                yield outcome

    def _without_error(self) -> list[dict]:
        """All mutants that hurt, and a sample of the equivalent ones, drawn so that it stays as others come in."""
        outcomes = self.run["outcomes"]
        unaccused = [(o, n) for o, n in zip(outcomes, news(outcomes), strict=True) if error_of(n) is None]
        same = [o for o, n in unaccused if equivalent([n])]
        same.sort(key=lambda o: random.Random(f"{self.run['seed']} {o['origin']} {o['key']}").random())
        return [o for o, n in unaccused if hurting([n])] + same[: self.sample]

    def _harmless(self) -> list[dict]:
        """Equivalent mutants with an error, but for those that raise one themselves."""
        outcomes = self.run["outcomes"]
        return [
            o
            for o, n in zip(outcomes, found_deep(outcomes), strict=True)
            if equivalent([n]) and (error := error_of(n)) and error["code"] != RAISES
        ]

    def _place(self, name: str) -> Workplace:
        if name not in self.places:
            self.places[name] = Workplace(self.origins[name], Path(tempfile.mkdtemp(dir=self.folder)))
        return self.places[name]

    def _forked(self, outcome: dict, function: Callable, *args) -> tuple:
        """A function of the workplace that holds the mutant, or the original, in a process of its own."""
        place, mutant = self._place(outcome["origin"]), outcome["mutant"]
        if not mutant:
            return forked(function, place, *args, most=_CPU)
        file = next(f for f in place.files if f.name == outcome["file"])
        source = remade(file.read_text(encoding="utf-8"), mutant["diff"], mutant["line"])
        if source is None:
            raise StoriesError(f"{outcome['origin']}: {file.name} has changed since: {mutant['diff'][0]}")
        with place.holding(file, source):
            return forked(function, place, *args, most=_CPU)

    def _deep(self, outcome: dict) -> tuple[list[dict] | str, float]:
        """Findings, or how the process ended otherwise."""
        found, seconds = self._forked(outcome, exchanged)
        return (ended_with(found) if isinstance(found, str) else found), seconds

    def _longer(self, outcome: dict) -> tuple[dict, float]:
        updates = LONGER * self.run["updates"]
        _, reference = begun(self._place(outcome["origin"]), updates, self.keep, whole=True)
        found, seconds = self._forked(outcome, trial, updates, reference, False)
        if isinstance(found, str):
            return {"verdict": "", "why": ended_with(found), "updates": updates}, seconds
        return {"verdict": found["verdict"], "why": found["why"], "updates": updates}, seconds


def exchanged(workplace: Workplace) -> list[dict]:
    """What the exchange alone finds."""
    with loaded(workplace) as (subject, _):
        found = deepened(Diagnosis(subject.name, [], [], 0.0), subject)
    return [told(f) for f in (*found.findings, *found.consequences) if f.rung == "exchange"]
