"""An endless supply of faults that nobody chose: mutations of sound setups, trained and climbed.

    python benchmarks/mutants.py --seed 0 --minutes 20 --json mutants-0.json --keep mutants
    python benchmarks/mutants.py --file cases.py:story --script train.py --text stories.txt --json own.json
    python benchmarks/mutants.py --deep mutants-0.json --keep mutants
    python benchmarks/mutants.py --docs mutants-0.json --docs mutants-1.json

Each mutation is made in a copy of the setup's folder. A process of its own trains it for a while on its batches, and
measures it on the original's held-out rows: it hurts where that loss is 3 % worse or better than possible, or where a
reported figure is off by as much; it is equivalent within 1 % or what another seed moves. Then the quick ladder climbs
all that hurt, and equivalent ones as long as they are fewer. ``--deep`` has a second look at what came of it, with the
same ``--zoo``, ``--file``, ``--script`` and ``--text``: see `mutating.second`.
"""

from __future__ import annotations

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
from mutating.forked import ended_with, forked
from mutating.lines import parts
from mutating.originals import begun
from mutating.page import PAGE, in_words, in_words_deep, news, page
from mutating.second import Second
from mutating.setups import Origin, Workplace, given
from mutating.source import Mutation, difference, mutations
from mutating.trial import FAILS, HURTS, trial

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
            found = {"verdict": FAILS, "why": ended_with(found)}
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
        told, reference = begun(workplace, self.updates, self.keep)
        common = {"origin": origin.name, "script": origin.script}
        yield common | {"mutant": None, **{key: value for key, value in told.items() if key != "lines"}}
        files = []
        for file in workplace.files if "lines" in told else ():
            source = file.read_text(encoding="utf-8")
            lines = parts(source, told["lines"][str(file.relative_to(place))], origin.script)
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
    "--deep",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look a second time at what --json wrote: debug --deep where the list found no error, and longer trainings "
    "of what it accused without harm; written into the file, which is gone on with.",
)
@click.option(
    "--deep-sample",
    default=40,
    show_default=True,
    help="Equivalent mutants without an error that --deep sees.",
)
@click.option(
    "--docs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Write docs/{PAGE.name} from what --json wrote; nothing is tried; repeatable.",
)
def main(files, scripts, text, zoo, seed, updates, minutes, note, path, keep, deep, deep_sample, docs):
    """Mutate sound setups and climb what hurts."""
    if docs:
        PAGE.write_text(page([json.loads(file.read_text()) for file in docs]), encoding="utf-8")
        return
    argv = (str(Path(text).resolve()),) if text else ()
    origins = list(given(zoo, files, scripts, argv))
    with tempfile.TemporaryDirectory() as folder:
        keep = keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        if deep:
            look_again(deep, origins, deep_sample, keep, minutes)
            return
        run = Run(seed, updates, keep)
        if path and path.exists():
            before = [o for o in json.loads(path.read_text())["outcomes"] if o["mutant"]]
            run.known = {(o["origin"], o["key"]): o for o in before}
        for outcome in run.rounds(origins):
            click.echo(_line(outcome))
            if path:
                outcomes = run.outcomes + list(run.known.values())
                told = {"seed": seed, "updates": updates, "note": note, "outcomes": outcomes}
                path.write_text(json.dumps(told, indent=1) + "\n")
            if run.spent > 60 * minutes:
                break
    click.echo(in_words(news(run.outcomes)))


def look_again(path: Path, origins: list[Origin], sample: int, keep: Path, minutes: float) -> None:
    """The second look at what is in a file, written into it after each mutant."""
    run = json.loads(path.read_text())
    second = Second(run, {o.name: o for o in origins}, sample, keep)
    for outcome in second.looks():
        click.echo(f"{_line(outcome)} deep: {outcome.get('deep')}; longer: {outcome.get('longer')}")
        path.write_text(json.dumps(run, indent=1) + "\n")
        if second.spent > 60 * minutes:
            break
    click.echo(in_words_deep(run["outcomes"]))


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
