"""An endless supply of faults that nobody chose: mutations of sound setups, trained and climbed.

    python benchmarks/mutants.py --seed 0 --minutes 20 --json mutants-0.json --keep mutants
    python benchmarks/mutants.py --file cases.py:story --script train.py --text stories.txt --json own.json
    python benchmarks/mutants.py --docs mutants-0.json --docs mutants-1.json

Each mutation is made in a copy of the setup's folder. A process of its own trains it for a while on its batches, and
measures it on the original's held-out rows: it hurts where that loss is 3 % worse or better than possible, or where a
reported figure is off by as much; it is equivalent within 1 % or what another seed moves. Then the quick ladder climbs
all that hurt, and equivalent ones as long as they are fewer.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
from mutating.forked import forked
from mutating.lines import parts
from mutating.page import PAGE, in_words, news, page
from mutating.setups import Origin, Workplace, given
from mutating.source import Mutation, mutations
from mutating.trial import FAILS, HURTS, original, trial

ZOO = (
    "gru",
    "alibi",
    "linear-attention",
    "state-space",
    "tuple-output-and-z-loss",
    "accumulation",
    "padded-rows",
)
"""From the healthy zoo: what is written out in its files."""


@dataclass
class Run:
    """Mutants of a seed, and what became of them.

    Attributes:
        known: outcomes of an earlier run with the same seed, by setup and mutated lines, that have not come by yet.
        keep: a folder for trained originals.
    """

    seed: int
    updates: int
    keep: Path
    known: dict[tuple[str, str], dict] = field(default_factory=dict)
    outcomes: list[dict] = field(default_factory=list)
    spent: float = 0.0  # CPU seconds

    def begin(self, workplace: Workplace) -> tuple[dict, Path]:
        """What the original shows, from the folder where it is kept there."""
        name = "".join(c if c.isalnum() else "-" for c in workplace.origin.name) + f"-{self.updates}"
        told, reference = self.keep / f"{name}.json", self.keep / f"{name}.pickle"
        if not (told.exists() and reference.exists()):
            found, seconds = forked(original, workplace, self.updates, reference)
            found = found if isinstance(found, dict) else {"why": _last_line(found)}
            told.write_text(json.dumps(found | {"seconds": seconds}))
        return json.loads(told.read_text()), reference

    def tried(self, workplace: Workplace, reference: Path, file: Path, mutation: Mutation) -> dict:
        """What becomes of a mutation: known, or found out."""
        diff = difference(file.read_text(encoding="utf-8"), mutation.source)
        key = workplace.origin.name, f"{file.name} {mutation.line} " + "\n".join(diff)
        if key in self.known:
            return self.known.pop(key)
        with workplace.holding(file, mutation.source):
            found, seconds = forked(trial, workplace, self.updates, reference, self._climbs())
        self.spent += seconds
        if not isinstance(found, dict):
            found = {"verdict": FAILS, "why": _last_line(found)}
        told = {name: value for name, value in asdict(mutation).items() if name != "source"}
        return {
            "file": file.name,
            "mutant": told | {"diff": diff},
            "key": key[1],
            **found,
            "seconds": seconds,
        }

    def _climbs(self) -> bool:
        climbed = [o["verdict"] for o in self.outcomes if "findings" in o]
        return len(climbed) <= 2 * climbed.count(HURTS)

    def rounds(self, origins: list[Origin]) -> Iterator[dict]:
        """Outcomes without end, one mutation of each setup after the other."""
        with tempfile.TemporaryDirectory() as folder:
            seen: dict[str, set[str]] = {}  # by file: setups that share it share no mutant
            streams = [self._of(origin, Path(folder).resolve(), seen) for origin in origins]
            while streams:
                for stream in list(streams):
                    if (outcome := next(stream, None)) is None:
                        streams.remove(stream)
                        continue
                    self.outcomes.append(outcome)
                    yield outcome

    def _of(self, origin: Origin, folder: Path, seen: dict[str, set[str]]) -> Iterator[dict]:
        """The original, then its mutants."""
        place = Path(tempfile.mkdtemp(dir=folder))
        workplace, rng = Workplace(origin, place), random.Random(f"{self.seed} {origin.name}")
        begun, reference = self.begin(workplace)
        common = {"origin": origin.name, "script": origin.script}
        yield common | {"mutant": None, **{key: value for key, value in begun.items() if key != "lines"}}
        files = []
        for file in workplace.files if "lines" in begun else ():
            source = file.read_text(encoding="utf-8")
            lines = parts(source, begun["lines"][str(file.relative_to(place))], origin.script)
            stream = mutations(source, lines, rng, seen.setdefault(file.name, set()))
            files.append((file, lines, stream))
        while files:
            chosen = rng.choices(files, [len(lines) for _, lines, _ in files])[0]
            file, lines, stream = chosen
            mutation = next(stream, None)
            if mutation is None:
                files.remove(chosen)
                continue
            ran = sorted(lines.get(mutation.line, ()))
            yield common | {"parts": ran} | self.tried(workplace, reference, file, mutation)


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, as a diff has them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in list(lines)[2:] if line[0] in "+-" and line[1:].strip()]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


@click.command()
@click.option(
    "--file", "files", multiple=True, help="FILE.py:FUNCTION[,FUNCTION]: sound subjects; repeatable."
)
@click.option(
    "--script",
    "scripts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="A sound training script; repeatable.",
)
@click.option("--text", default="", help="What scripts are given: a text file.")
@click.option(
    "--zoo", default=",".join(ZOO), show_default=False, help="Names from the healthy zoo; empty for none."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of mutations.")
@click.option("--updates", default=120, show_default=True, help="Of each training, at most.")
@click.option(
    "--minutes", default=20.0, show_default=True, help="CPU minutes after which no mutant is begun."
)
@click.option("--note", default="", help="What --docs says of this run.")
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Outcomes are written here; a file that is there is gone on with.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder that keeps trained originals, for other seeds.",
)
@click.option(
    "--docs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Write docs/{PAGE.name} from what --json wrote; nothing is tried; repeatable.",
)
def main(files, scripts, text, zoo, seed, updates, minutes, note, path, keep, docs):
    """Mutate sound setups and climb what hurts."""
    if docs:
        PAGE.write_text(page([json.loads(file.read_text()) for file in docs]), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        run = Run(seed, updates, keep or Path(folder))
        run.keep.mkdir(parents=True, exist_ok=True)
        if path and path.exists():
            before = [o for o in json.loads(path.read_text())["outcomes"] if o["mutant"]]
            run.known = {(o["origin"], o["key"]): o for o in before}
        argv = (str(Path(text).resolve()),) if text else ()
        for outcome in run.rounds(list(given(zoo, files, scripts, argv))):
            click.echo(_line(outcome))
            if path:
                outcomes = run.outcomes + list(run.known.values())
                told = {"seed": seed, "updates": updates, "note": note, "outcomes": outcomes}
                path.write_text(json.dumps(told, indent=1) + "\n")
            if run.spent > 60 * minutes:
                break
    click.echo(in_words(news(run.outcomes)))


def _line(outcome: dict) -> str:
    if outcome["mutant"] is None:
        return f"{outcome['origin']}: {outcome.get('loss') or outcome.get('why')}, {outcome['seconds']:.1f} s"
    mutant = outcome["mutant"]
    found = (
        "; ".join(f"{f['severity']} {f['code']}" for f in outcome.get("findings", []))
        if "findings" in outcome
        else ""
    )
    before, after = (" ".join(mutant[key].split())[:60] for key in ("before", "after"))
    return (
        f"{outcome['origin']}:{mutant['line']} {mutant['operator']}: {before} -> {after}: {outcome['verdict']} "
        f"({outcome['why'][:70]}) [{found}] {outcome['seconds']:.1f} s"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
