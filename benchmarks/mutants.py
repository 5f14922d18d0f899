"""An endless supply of faults that nobody chose: mutations of sound setups, trained and climbed.

    python benchmarks/mutants.py --seed 0 --minutes 40 --json mutants.json --docs
    python benchmarks/mutants.py --file cases.py:story --script train.py --text stories.txt

Each mutation is made in a copy of the setup's folder. A process of its own trains it for a while on the batches of
the original, and measures it on the original's held-out rows: it hurts where that loss is 3 % worse or better than
possible, or where a reported figure is off by as much; it is equivalent within 1 % or what another seed moves. Then
the quick ladder climbs all that hurt and a share of the equivalent ones.
"""

from __future__ import annotations

import difflib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from mutating.page import PAGE, in_words, page
from mutating.source import Mutation, mutations

HERE = Path(__file__).parent
ZOO = (
    "gru",
    "causal-convolution",
    "bengio-mlp",
    "alibi",
    "tied-embedding",
    "post-norm",
    "linear-attention",
    "state-space",
    "dropout",
    "tuple-output-and-z-loss",
)  # from the healthy zoo: what is written out in its files
_ENTRY = "from healthy import HEALTHY\n\n\ndef subject():\n    return HEALTHY[{name!r}](0)\n"
_WALL = 600  # seconds after which a trial is ended, whatever the machine's load


@dataclass(frozen=True)
class Origin:
    """A sound setup.

    Attributes:
        path: of the file that is loaded.
        function: that returns the subject; None for a script.
        argv: what the script is given.
        zoo: its name in the healthy zoo, where it comes from there.
    """

    path: Path
    function: str | None = None
    argv: tuple[str, ...] = ()
    zoo: str | None = None

    @property
    def name(self) -> str:
        if self.zoo:
            return f"zoo: {self.zoo}"
        return f"script: {self.path.name}" if self.function is None else f"{self.path.name}: {self.function}"


class Workplace:
    """A copy of a setup's folder, in which one file at a time is another."""

    def __init__(self, origin: Origin, place: Path, updates: int):
        self.origin, self.place, self.updates = origin, place, updates
        self.folder = place / origin.path.parent.name
        self.folder.mkdir()
        for path in origin.path.parent.parent.iterdir():  # data that lies beside it, say
            if path != origin.path.parent and not path.name.startswith("."):
                (place / path.name).symlink_to(path)
        for path in origin.path.parent.glob("*.py"):
            shutil.copy(path, self.folder)
        self.entry = self.folder / origin.path.name
        self.files = [self.entry]
        if origin.zoo:
            self.files = [self.folder / "zoo.py", self.folder / "healthy.py"]
            self.entry = self.folder / "entry.py"
            self.entry.write_text(_ENTRY.format(name=origin.zoo))
        self.reference = place / "reference.pickle"

    def begin(self) -> dict:
        """Train the original."""
        return self._tried(keep=str(self.reference), files=[str(file) for file in self.files], reference=None)

    def mutated(self, file: Path, mutation: Mutation, equivalent: bool) -> dict:
        """Try one mutation; the file is put back."""
        before = file.read_text(encoding="utf-8")
        file.write_text(mutation.source, encoding="utf-8")
        try:
            return self._tried(reference=str(self.reference), equivalent=equivalent)
        finally:
            file.write_text(before, encoding="utf-8")

    def _tried(self, **task) -> dict:
        function = self.origin.function or ("subject" if self.origin.zoo else None)
        task |= {
            "spec": str(self.entry) + (f":{function}" if function else ""),
            "script": function is None,
            "argv": list(self.origin.argv),
            "updates": self.updates,
        }
        given, result = self.place / "task.json", self.place / "result.json"
        given.write_text(json.dumps(task))
        result.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "mutating" / "trial.py"), str(given), str(result)]
        begun = _spent()
        try:
            ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=_WALL)
            said = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            said = "out of time"
        found = (
            json.loads(result.read_text())
            if result.exists()
            else {"verdict": "does not run", "why": said[:300]}
        )
        return found | {"seconds": _spent() - begun}


def _spent() -> float:
    """CPU seconds of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parts(lines: dict[str, list[str]], imported: bool) -> dict[int, set[str]]:
    """By line that is run, the part of the setup where a mistake in it lies; empty where that cannot be told.

    Args:
        imported: whether what runs as the file is imported belongs to the setup.
    """
    found = {}
    for line, ran in lines.items():
        told = {"model"} if "model" in ran else set(ran) - {"import"}
        if told or imported or "import" not in ran:
            found[int(line)] = told - {"step"} if "loss" in told else told
    return found


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, as a diff has them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in list(lines)[2:] if line[0] in "+-" and line[1:].strip()]


def rounds(origins: list[Origin], seed: int, updates: int, share: float) -> Iterator[dict]:
    """Outcomes without end, one mutation of each setup after the other."""
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for index, origin in enumerate(origins):
            place = Path(folder).resolve() / str(index)
            place.mkdir()
            rng = random.Random(f"{seed} {origin.name}")
            sources.append(_of(Workplace(origin, place, updates), rng, share))
        while sources:
            for source in list(sources):
                outcome = next(source, None)
                if outcome is None:
                    sources.remove(source)
                else:
                    yield outcome


def _of(workplace: Workplace, rng: random.Random, share: float) -> Iterator[dict]:
    """The original, then its mutants."""
    begun = workplace.begin()
    origin = {
        "origin": workplace.origin.name,
        "script": workplace.origin.function is None and not workplace.origin.zoo,
    }
    yield origin | {"mutant": None, **{key: value for key, value in begun.items() if key != "lines"}}
    if "lines" not in begun:
        return
    streams = []
    for file in workplace.files:
        lines = parts(begun["lines"][str(file)], imported=not workplace.origin.zoo)
        if lines:
            source = file.read_text(encoding="utf-8")
            streams.append((file, lines, source, mutations(source, lines, rng)))
    while streams:
        stream = rng.choices(streams, [len(lines) for _, lines, *_ in streams])[0]
        file, lines, source, mutants = stream
        mutation = next(mutants, None)
        if mutation is None:
            streams.remove(stream)
            continue
        found = workplace.mutated(file, mutation, rng.random() < share)
        told = {key: value for key, value in asdict(mutation).items() if key != "source"}
        told["diff"] = difference(source, mutation.source)
        yield origin | {
            "file": file.name,
            "mutant": told,
            "parts": sorted(lines.get(mutation.line, ())),
            **found,
        }


def _files(given: tuple[str, ...]) -> Iterator[Origin]:
    for spec in given:
        path, _, names = spec.rpartition(":")
        if not path or not Path(path).is_file():
            raise click.BadParameter(f"{spec}: give FILE.py:FUNCTION[,FUNCTION]")
        for name in names.split(","):
            yield Origin(Path(path).resolve(), name)


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
@click.option("--updates", default=160, show_default=True, help="Of each training, at most.")
@click.option("--share", default=0.5, show_default=True, help="Of the equivalent ones that are climbed.")
@click.option(
    "--minutes", default=40.0, show_default=True, help="CPU minutes after which no mutant is begun."
)
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all outcomes here."
)
@click.option("--docs", is_flag=True, help=f"Write docs/{PAGE.name}.")
@click.option("--rewrite", is_flag=True, help="Count and write anew what --json holds; nothing is tried.")
def main(files, scripts, text, zoo, seed, updates, share, minutes, path, docs, rewrite):
    """Mutate sound setups and climb what hurts."""
    origins = [Origin(HERE / "healthy.py", zoo=name) for name in zoo.split(",") if name]
    origins += _files(files)
    if rewrite and not (path and path.is_file()):
        raise click.UsageError("--rewrite wants --json with a file that is there")
    argv = (str(Path(text).resolve()),) if text else ()
    origins += [Origin(script, argv=argv) for script in scripts]
    outcomes = json.loads(path.read_text()) if rewrite else []
    for outcome in () if rewrite else rounds(origins, seed, updates, share):
        outcomes.append(outcome)
        click.echo(_line(outcome))
        if path:
            path.write_text(json.dumps(outcomes, indent=1) + "\n")
        if _spent() > 60 * minutes:
            break
    click.echo(in_words(outcomes))
    if docs:
        PAGE.write_text(page(outcomes, seed, updates), encoding="utf-8")


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
    main()
