"""Stories told, prepared, trained from and started with: rates, memory and seconds.

    python benchmarks/data.py                          # rates on 10 MB, start-up of commands
    python benchmarks/data.py --gigabytes 5            # and the memory of preparing 5 GB and training on them

The contenders of a rate take turns within each round; shown are medians over the rounds with the fastest and the
slowest, in wall seconds and in CPU seconds, which other programs disturb less. ``ratio_to_tokenizers`` is our rate of
tokenising into shards over that of the bare library on the same texts in memory. Memory is that of a command's own
process: the peak of what is resident, and on Linux of its anonymous part, without the pages of mapped files, which the
system takes back when it needs them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import click

from mlxstories.data import source
from mlxstories.data.config import DataConfig
from mlxstories.data.prepare import prepare
from mlxstories.data.readers import read_documents
from mlxstories.data.shards import Index
from mlxstories.data.tokenizer import Tokenizer, chunks

POOL = 5000  # stories whose halves are combined into corpora of any size, no two stories alike
RATE_MEGABYTES = 10
STORIES = 10_000  # told in a round


@click.command()
@click.option("--gigabytes", default=0.0, show_default=True, help="Text that is prepared and trained on.")
@click.option("--steps", default=100, show_default=True, help="Updates of that training.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of each comparison.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--folder", type=click.Path(path_type=Path), help="For corpora.  [default: a temporary one]")
def main(gigabytes, steps, rounds, path, folder):
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("mlx", "tokenizers", "numpy")},
        "rounds": rounds,
    }
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        result |= measure_rates(place, rounds)
        result["startup"] = measure_startup(place, rounds)
        if gigabytes:
            result["large"] = measure_large(place, gigabytes, steps)
    show(result)
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def measure_rates(place: Path, rounds: int) -> dict:
    """Megabytes a second of the story source, of the tokenizers library, and of preparing."""
    corpus = place / "rates.txt"
    write_corpus(corpus, RATE_MEGABYTES)
    texts = list(read_documents([corpus]))
    tokenizer = Tokenizer.train("word", texts)
    told = sum(len(text) for text in source.texts(STORIES, 0)) / 1e6
    stage = [0.0, 0.0]  # the rates of tokenising in the last preparation

    def tell() -> float:
        for _ in source.texts(STORIES, 0):
            pass
        return told

    def library() -> float:
        for chunk in chunks(texts):
            tokenizer.backend.encode_batch_fast(chunk, add_special_tokens=False)
        return RATE_MEGABYTES

    def shards() -> float:
        began = {}

        def note(stage: str, done: int, total: int | None) -> None:
            began.setdefault(stage, (time.perf_counter(), time.process_time()))

        with tempfile.TemporaryDirectory(dir=place) as target:
            prepare(DataConfig(str(corpus)), Path(target), report=note)
        stage[:] = [
            RATE_MEGABYTES / (end - start)
            for start, end in zip(began["tokenising"], began["comparing"], strict=True)
        ]
        return RATE_MEGABYTES

    runs: dict[str, list[tuple[float, float]]] = {
        "source": [],
        "tokenizers": [],
        "prepare": [],
        "tokenise": [],
    }
    for _ in range(rounds):
        for name, work in (("source", tell), ("tokenizers", library), ("prepare", shards)):
            wall, cpu = time.perf_counter(), time.process_time()
            done = work()
            runs[name].append((done / (time.perf_counter() - wall), done / (time.process_time() - cpu)))
        runs["tokenise"].append(tuple(stage))
    pairs = list(zip(runs["tokenise"], runs["tokenizers"], strict=True))
    return {
        "megabytes_per_second": {name: _spread([wall for wall, _ in found]) for name, found in runs.items()},
        "megabytes_per_cpu_second": {
            name: _spread([cpu for _, cpu in found]) for name, found in runs.items()
        },
        "ratio_to_tokenizers": statistics.median(ours[0] / theirs[0] for ours, theirs in pairs),
        "cpu_ratio_to_tokenizers": statistics.median(ours[1] / theirs[1] for ours, theirs in pairs),
    }


def measure_startup(place: Path, rounds: int) -> dict:
    """Seconds from the call to the end of commands that do next to nothing."""
    run = ["--stories", "20", "--validation", "5", "--size", "debug", "--steps", "1", "--no-check"]
    mlxstories("train", *run, "--runs", str(place / "runs"), "--name", "tiny")
    sample = ("sample", "tiny", "--runs", str(place / "runs"), "--num", "1", "--max-tokens", "8")
    commands: dict[str, Callable[[], dict]] = {
        "python -c 'import mlx.core'": lambda: measured([sys.executable, "-c", "import mlx.core"]),
        "mlxstories --help": lambda: mlxstories("--help"),
        "mlxstories sample --help": lambda: mlxstories("sample", "--help"),
        "mlxstories info": lambda: mlxstories("info"),
        "mlxstories sample, 8 tokens": lambda: mlxstories(*sample),
    }
    runs: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, work in commands.items():
            runs[name].append(work())
    return {
        name: {clock: _spread([run[clock] for run in found]) for clock in ("seconds", "cpu_seconds")}
        for name, found in runs.items()
    }


def measure_large(place: Path, gigabytes: float, steps: int) -> dict:
    """Memory and seconds of ``data prepare`` on a generated text, and of a training on what it wrote."""
    corpus, target = place / "corpus.txt", place / "prepared"
    write_corpus(corpus, gigabytes * 1000)
    preparing = mlxstories("data", "prepare", str(corpus), "--to", str(target))
    corpus.unlink()
    training = mlxstories(
        *("train", "--data", str(target), "--size", "debug", "--steps", str(steps), "--batch-size", "8"),
        *("--runs", str(place / "runs"), "--name", "large"),
    )
    shards = Index.read(target).train
    return {
        "gigabytes": gigabytes,
        "stories": sum(shard.stories for shard in shards),
        "tokens": sum(shard.tokens for shard in shards),
        "token_bytes": sum(file.stat().st_size for file in target.glob("train-*.tokens")),
        "steps": steps,
        "preparing": preparing,
        "training": training,
    }


def write_corpus(path: Path, megabytes: float) -> None:
    """A text of the first half of one story and the second of another, each pair once."""
    pool = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in source.texts(POOL, 1)]
    left = megabytes * 1e6
    with open(path, "w", encoding="utf-8") as file:
        for first, second in _pairs(pool):
            left -= file.write(f"{first}{second}\n<|endoftext|>\n")
            if left <= 0:
                return


def _pairs(pool: list[tuple]) -> Iterator[tuple]:
    for shift in range(len(pool)):
        for number, (first, _) in enumerate(pool):
            yield first, pool[(number + shift) % len(pool)][1]


def mlxstories(*words: str) -> dict:
    return measured([sys.executable, "-m", "mlxstories.cli", *words])


def measured(command: list[str]) -> dict:
    """Run a command: its seconds, CPU seconds and peak memory in bytes.

    ``peak_bytes`` counts all resident pages; ``peak_anonymous_bytes`` leaves those of mapped files out, and is
    sampled every 50 ms, on Linux alone.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    anonymous = 0
    while True:
        number, status, usage = os.wait4(process.pid, os.WNOHANG)
        if number:
            break
        anonymous = max(anonymous, _anonymous(process.pid))
        time.sleep(min(0.05, 0.002 + (time.perf_counter() - began) / 50))
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    error = process.stderr.read().decode()
    process.stderr.close()
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} failed: {error[-500:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * unit,
        "peak_anonymous_bytes": anonymous or None,
    }


def _anonymous(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _spread(values: list[float]) -> dict:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(result: dict) -> None:
    print(
        f"{result['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    )
    print(f"{result['rounds']} rounds: median (least to most)")
    for title, key in (("MB/s", "megabytes_per_second"), ("MB a CPU second", "megabytes_per_cpu_second")):
        for name, rate in result[key].items():
            print(f"  {name:28} {rate['median']:8.2f} ({rate['least']:.2f} to {rate['most']:.2f}) {title}")
    print(
        f"  tokenising into shards is {result['ratio_to_tokenizers']:.2f}x the bare library, "
        f"{result['cpu_ratio_to_tokenizers']:.2f}x by CPU time"
    )
    for name, row in result["startup"].items():
        wall, cpu = row["seconds"], row["cpu_seconds"]
        print(
            f"  {name:28} {wall['median']:8.2f} ({wall['least']:.2f} to {wall['most']:.2f}) s, "
            f"{cpu['median']:.2f} CPU s"
        )
    if large := result.get("large"):
        print(
            f"  {large['gigabytes']:g} GB: {large['stories']:,} stories, {large['tokens']:,} tokens in "
            f"{large['token_bytes'] / 1e6:,.0f} MB of shards, {large['steps']} updates"
        )
        for name in ("preparing", "training"):
            row = large[name]
            anonymous = row["peak_anonymous_bytes"]
            print(
                f"    {name}: {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} CPU s, peak "
                f"{row['peak_bytes'] / 1e6:.0f} MB resident"
                + (f", {anonymous / 1e6:.0f} MB of it anonymous" if anonymous else "")
            )


if __name__ == "__main__":
    main()
