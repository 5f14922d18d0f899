"""Bad input by the thousand: every reader and command must refuse it in one line, or take it.

    python benchmarks/fuzz.py --inputs 10000 --json fuzz.json

Inputs are made by hypothesis from good ones: bits flipped, parts cut out, doubled or replaced, JSON values of the
wrong type, size or name, links that lead outside, headers that promise terabytes, numbers without end. What counts as
a failure: any exception but StoriesError, a message of more than one line, an exit code other than 0, 1 or 2, more
than 10 s of CPU time or 1 GiB of memory, and a file written, changed or removed outside the folder that was named. A
crash ends the benchmark itself. ``--inputs`` counts different ones: an area goes on until it has its share, or until
nothing new is drawn. All areas get about the same CPU time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import hypothesis
import pyarrow
import pyarrow.parquet
from click.testing import CliRunner
from hostile import ENVIRONMENTS, NAMES, NUMBERS, TABLES, TEXTS, among_good_ones
from hypothesis import strategies as st
from mangling import JUNK, mangled, mangled_json, spoiled
from sandbox import Sandbox

from mlxstories.cli import main as cli
from mlxstories.comparison.arms import read_arms
from mlxstories.data import shards
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.readers import SEPARATORS, read_documents
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.export import export, import_model
from mlxstories.generation.sampling import SamplingConfig
from mlxstories.plots.report import page
from mlxstories.plots.report.summary import read_summaries
from mlxstories.plots.runs import read_curves
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoint_state import Checkpoint
from mlxstories.runs.directory import Run, find_run
from mlxstories.training import experiment

CPU_SECONDS = 10
WAIT = 60  # seconds, at a pipe for example
MEMORY = 2**30  # bytes
_SPARE = 10  # more inputs in a round that makes up for repeats
TEXT = (
    "Once upon a time there was a cat.\n\nThe cat's name was “Zoë”.<|endoftext|>\nShe ran home.\n\nThe end.\n"
)

_NUMBERS = [*f"-1 0 1 2 7 1.5 -0.5 1e-9 1e400 nan inf 0x10 1_0 {10**30}".split(), *NUMBERS]
_WORDS = [
    "x",
    "..",
    "../outside",
    "/etc/passwd",
    "/dev/null",
    "é",
    "\udcff",
    "-",
    "--",
    "=",
    "a=b",
    "list",
    "best",
    "1,2",
]
_WORDS += ["", "a\nb", "x" * 300, "clip_norm=null", "optimizer.eps=x", 'schedule.name={"a":[]}']
_WORDS += [
    f"{field}={number}" for field in ("name", "optimizer.learning_rate", "accumulation") for number in NUMBERS
]


def _changes(draw, files: dict[str, bytes]) -> dict[str, bytes]:
    """One or two of the files, spoiled."""
    chosen = draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
    return {name: draw((spoiled if name.endswith(".json") else mangled)(files[name])) for name in chosen}


# The areas: each takes hypothesis' draw and the sandbox, and feeds one input to the code.


def text_files(draw, box: Sandbox) -> None:
    hostile = TEXTS.map(lambda text: "\n\n".join(among_good_ones(text)).encode("utf-8", "surrogatepass"))
    (box.target / "a.txt").write_bytes(draw(st.one_of(mangled(TEXT.encode()), hostile)))
    _read_stories(draw, box.target / "a.txt")


def json_lines(draw, box: Sandbox) -> None:
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXT.split("\n\n"))
    junk = st.one_of(st.lists(JUNK, max_size=3), TEXTS.map(among_good_ones)).map(
        lambda rows: "\n".join(json.dumps({"text": r}) for r in rows).encode()
    )
    (box.target / "a.jsonl").write_bytes(draw(st.one_of(mangled(lines), junk)))
    _read_stories(draw, box.target / "a.jsonl")


def _parquet(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


_TABLE = _parquet(pyarrow.table({"text": TEXT.split("\n\n"), "n": [1, 2, 3]}))


def parquet(draw, box: Sandbox) -> None:
    (box.target / "a.parquet").write_bytes(draw(st.one_of(mangled(_TABLE), TABLES.map(_parquet))))
    _read_stories(draw, box.target / "a.parquet")


def _read_stories(draw, path: Path) -> None:
    separator = draw(st.sampled_from(SEPARATORS))
    if draw(st.booleans()):
        list(read_documents([path], separator=separator, field=draw(st.sampled_from(["text", "n", ""]))))
    else:
        kind = draw(st.sampled_from(["word", "char", "bpe"]))
        load_dataset(DataConfig(source=str(path), separator=separator, tokenizer=kind, split="tail"))


def arms(draw, box: Sandbox) -> None:
    good = {
        "a": {"phase": 1, "optimizer.learning_rate": 1e-3, "model.layers": 2, "accumulation": 2},
        "b": {"phase": 3, "optimizer": {"betas": [0.9, 0.99]}, "schedule.name": "wsd", "clip_norm": None},
    }
    toml = b"[a]\nphase = 1\n[b]\nphase = 2\noptimizer.learning_rate = 3e-4\nmodel.layers = 8\n"
    name, content = draw(
        st.one_of(
            st.tuples(st.just("arms.json"), spoiled(json.dumps(good).encode())),
            st.tuples(st.just("arms.toml"), mangled(toml)),
        )
    )
    (box.target / name).write_bytes(content)
    read_arms(box.target / name)


def tokenizers(draw, box: Sandbox) -> None:
    run = box.run({"tokenizer.json": draw(spoiled(box.files["tokenizer.json"]))})
    tokenizer = run.tokenizer()
    tokens = tokenizer.encode("The cat’s name was\nZoë -- 3:30!")
    tokenizer.decode(tokens)
    Tokenizer.load(run.path / "tokenizer.json").save(box.target / "again.json")


def configurations(draw, box: Sandbox) -> None:
    _use(draw, box.run({"config.json": draw(spoiled(box.files["config.json"]))}))


def metrics(draw, box: Sandbox) -> None:
    lines = box.files["metrics.jsonl"].splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    one = spoiled(lines[at]).map(lambda line: b"\n".join([*lines[:at], line, *lines[at + 1 :]]))
    _use(draw, box.run({"metrics.jsonl": draw(st.one_of(one, mangled(box.files["metrics.jsonl"])))}))


def findings(draw, box: Sandbox) -> None:
    good = [
        {"code": "overfitting", "rung": "training", "evidence": {"step": 3}},
        {"code": "x", "rung": "data"},
    ]
    run = box.run({"findings.json": draw(spoiled(json.dumps(good).encode()))})
    run.add_findings([])
    run.rewind(2)


def checkpoint_files(draw, box: Sandbox) -> None:
    files = {name: content for name, content in box.files.items() if name.startswith("checkpoints/")}
    _use(draw, box.run(_changes(draw, files)))


def exports(draw, box: Sandbox) -> None:
    read = ("config.json", "tokenizer.json", "model.safetensors")
    changes = _changes(draw, {name: box.exported[name] for name in read})
    run = import_model(box.copy("exported", box.exported | changes), box.target / "run")
    checkpoints.load_model(run)


def prepared_data(draw, box: Sandbox) -> None:
    folder = box.copy("prepared", box.prepared | _changes(draw, box.prepared))
    if draw(st.booleans()):
        shards.verify(folder)
    else:
        load_dataset(DataConfig(source=str(folder)))


def sealed_checkpoints(draw, box: Sandbox) -> None:
    """Checkpoints whose checksums are right and whose content is not, as only malice makes them."""
    run = box.run({})
    path = run.checkpoint("last").path
    file = path / draw(st.sampled_from(["model.safetensors", "optimizer.safetensors"]))
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])

    def with_header(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    sizes = st.sampled_from([0, 7, 2**31, 2**40, 2**63, 2**64 - 1])
    oversized = sizes.map(lambda size: struct.pack("<Q", size) + content[8:])
    file.write_bytes(draw(st.one_of(mangled_json(header).map(with_header), oversized, mangled(content))))
    state = json.loads((path / "state.json").read_text())
    del state["checksum"], state["sha256"]
    if draw(st.booleans()):
        state = draw(mangled_json(state))
    Checkpoint(path, state).write(path)
    _use(draw, run)


def links(draw, box: Sandbox) -> None:
    """Files and folders of a run that lead outside."""
    run = box.run({})
    files = ["", "checkpoints", "checkpoints/step-6", ".lock", "findings.json", "result.json", *box.files]
    path = run.path / draw(st.sampled_from(files[1:]))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(
        draw(st.sampled_from([box.outside, box.outside / "kept", box.outside / "new", Path("/dev/zero")]))
    )
    _use(draw, run)


def odd_files(draw, box: Sandbox) -> None:
    """Files of a run that are pipes, directories, or sparse and of terabytes."""
    run = box.run({})
    path = run.path / draw(st.sampled_from(sorted(box.files)))
    path.unlink()
    kind = draw(st.sampled_from(["pipe", "directory", "sparse"]))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif path.suffix == ".json":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    _use(draw, run)


def _use(draw, run: Run) -> None:
    """One of the things that are done with a run directory."""
    use = draw(st.sampled_from(["sample", "curves", "report", "export", "resume", "find", "finish"]))
    if use == "sample":
        model, tokenizer, _ = checkpoints.load_model(run, draw(st.sampled_from(["best", "last"])))
        tokenizer.decode(experiment.generate(model, [[]], max_tokens=2, sampling=SamplingConfig())[0].tokens)
    elif use == "curves":
        read_curves([run])
    elif use == "report":
        page.of_runs(read_summaries([run]), {run.path.name: "No stories."})
    elif use == "export":
        export(run, run.path.parent / "model")
    elif use == "find":
        assert find_run(None, run.path.parent).config
    else:
        trainer = experiment.resume(run, lambda record: None)
        if use == "finish":
            experiment.finish(trainer, trainer.train())


def _leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, *path, name)
        else:
            yield (*path, name), command


# What keeps a command from working for long once its options are good; junk given later overrides it.
_TINY = ["--stories", "6", "--validation", "2"]
_SHORT = {
    "train": [
        *_TINY,
        "--size",
        "debug",
        "--dim",
        "8",
        "--heads",
        "1",
        "--context",
        "32",
        "--steps",
        "1",
        "--no-check",
    ],
    "sample": ["--num", "1", "--max-tokens", "2"],
    "export": [],
    "import": [],
    "plot": [],
    "debug": ["--break", "nosuch"],
    "compare": ["--arms", "nosuch.json"],
    "stats": _TINY,
    "show": ["--stories", "2"],
}
_PLACES = ("--runs", "--to", "--export", "--store")  # written to, so the last word is ours
# Options for which a large number is a long but honest piece of work, or that leave for the network.
_HONEST = {
    "--steps",
    "--epochs",
    "--stories",
    "--validation",
    "--max-tokens",
    "--num",
    "--timeout",
    "--jobs",
    "--story",
}


def command_line(draw, box: Sandbox) -> None:
    path, command = draw(st.sampled_from([leaf for leaf in _leaves(cli) if leaf[0][-1] in _SHORT]))
    arguments = list(_SHORT[path[-1]])
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        name = draw(st.sampled_from(option.opts + option.secondary_opts))
        if name in _HONEST:
            continue
        arguments.append(name)
        if not option.is_flag:
            arguments.append(draw(st.sampled_from(_NUMBERS + _WORDS)))
    for name in [name for option in options for name in option.opts if name in _PLACES]:
        arguments += [name, str(box.target / name[2:])]
    if any(isinstance(parameter, click.Argument) for parameter in command.params):
        if path[-1] in ("sample", "plot", "export") and draw(st.booleans()):
            arguments.append(str(box.run({}).path))
        elif draw(st.booleans()):
            arguments.append(draw(st.sampled_from(_WORDS)))
    if "tinystories" in arguments:
        return
    _invoke([*path, *arguments])


def names(draw, box: Sandbox) -> None:
    """Figures and reports of a run by any name."""
    run, name = box.run({}), draw(NAMES)
    if 0 < len(name) < 200 and name not in ("..", "no such run") and "/" not in name:
        run.path.rename(run.path.with_name(name))
    command, place = draw(st.sampled_from([("plot", "--export"), ("report", "--to")]))
    _invoke([command, "--runs", str(box.target), place, str(box.target / "out"), "--", name])


def environments(draw, box: Sandbox) -> None:
    """Commands under odd variables, in a working directory that may be gone."""
    run = str(box.run({}).path)
    commands = [
        ["info"],
        ["data", "show", "--stories", "2"],
        ["sample", "run"],
        ["sample", run, "--num", "1"],
    ]
    commands += [["report", run, "--to", str(box.target / "page.html")], ["debug", "none.py"]]
    words, variables, lost = draw(st.sampled_from(commands)), draw(ENVIRONMENTS), box.target / "lost"
    if draw(st.booleans()):
        lost.mkdir()
        os.chdir(lost)
        lost.rmdir()
    try:
        _invoke(words, variables)
    finally:
        os.chdir(box.folder / "cwd")


def _invoke(words: list[str], variables: dict[str, str] | None = None) -> None:
    """Run a command, which must end well or in one line of error."""
    result = CliRunner(env=variables).invoke(cli, words)
    where = f"{words}: {result.output[-500:]}"
    assert result.exception is None or isinstance(result.exception, SystemExit), where
    assert result.exit_code in (0, 1, 2) and "Traceback" not in result.output, where
    if result.exit_code == 2:
        said = (
            result.output[result.output.index("Error: ") :].rstrip("\n") if "Error: " in result.output else ""
        )
        assert said and "\n" not in said, where
        raise StoriesError("refused")


AREAS: dict[str, Callable] = {
    area.__name__.replace("_", " "): area
    for area in (
        text_files,
        json_lines,
        parquet,
        arms,
        tokenizers,
        configurations,
        metrics,
        findings,
        checkpoint_files,
        exports,
        prepared_data,
        sealed_checkpoints,
        links,
        odd_files,
        names,
        environments,
        command_line,
    )
}

# Milliseconds of CPU time of an input, as measured, where they are more than the usual seven.
_COST = {
    "configurations": 27,
    "json lines": 28,
    "metrics": 31,
    "command line": 38,
    "text files": 40,
    "links": 45,
    "odd files": 46,
    "checkpoint files": 70,
    "sealed checkpoints": 104,
    "environments": 124,
    "names": 409,
}


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    def hang(_number, _frame):
        raise AssertionError(f"still at work after {seconds} s of CPU time, or waiting for {WAIT} s")

    previous = [signal.signal(number, hang) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), previous, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def memory_limit(most: int) -> Iterator[None]:
    """Fails afterwards if the process grew to a new peak that is higher by more than ``most`` bytes."""
    before = _peak()
    try:
        yield
    finally:
        assert _peak() - before <= most, f"took {(_peak() - before) / 2**30:.1f} GiB"


def _peak() -> int:
    """The most bytes that the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(name: str, box: Sandbox, inputs: int, seed: int = 0) -> tuple[Counter, dict[str, str]]:
    """Feed ``inputs`` different inputs to an area, fewer if it has no more.

    Returns how many were accepted, refused, failed and different, and a traceback for each kind of failure.
    """
    counts: Counter = Counter()
    failures: dict[str, str] = {}
    seen: set[int] = set()

    def one(data) -> None:
        drawn: list = []

        def draw(strategy):
            drawn.append(data.draw(strategy))
            return drawn[-1]

        try:
            with box.fresh(), cpu_limit(CPU_SECONDS), memory_limit(MEMORY):
                AREAS[name](draw, box)
            counts["accepted"] += 1
        except StoriesError as error:
            good = str(error) and "\n" not in str(error)
            counts["refused" if good else "failed"] += 1
            if not good:
                failures["not one line"] = str(error)
        except Exception as error:
            counts["failed"] += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            story = f"{traceback.format_exc()}\n{str(drawn)[:1000]}"
            failures.setdefault(f"{type(error).__name__} at {place.filename}:{place.lineno}", story)
        seen.add(hash(tuple(value if isinstance(value, bytes) else repr(value) for value in drawn)))

    before = -1
    while before < len(seen) < inputs:
        before = len(seen)
        settings = hypothesis.settings(
            max_examples=inputs - before + (_SPARE if before else 0),
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        hypothesis.seed(seed + before)(settings(hypothesis.given(st.data())(one)))()
    counts["different"] = len(seen)
    return counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="different ones, over all areas")
    parser.add_argument("--area", choices=list(AREAS), action="append", help="only this one; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    chosen = options.area or list(AREAS)
    shares = {name: 1 / _COST.get(name, 7) for name in chosen}
    totals: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        box = Sandbox(Path(folder))
        for name in chosen:
            began = time.process_time()
            inputs = math.ceil(options.inputs * shares[name] / sum(shares.values()))
            counts, failures = fuzz(name, box, inputs, options.seed)
            totals[name] = {**counts, "cpu_seconds": round(time.process_time() - began, 1)}
            print(f"{name:>20}: {totals[name]}", *failures.values(), sep="\n", flush=True)
            sums = sum((Counter(counts) for counts in totals.values()), Counter())
            if options.json:
                report = {"seed": options.seed, "inputs": sums, "areas": totals}
                options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print({key: round(count) for key, count in sums.items()})
    if sums["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
