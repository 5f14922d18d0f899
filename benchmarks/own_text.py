"""Which model suits a text of one's own: a grid on texts of several kinds and sizes, in bits a character.

    python benchmarks/own_text.py run --data DIR --texts oz-100,play-100 --size debug,small --vocab 512,1024 ...
    python benchmarks/own_text.py table --data DIR

DIR holds books.txt (pieces of children's and adventure books, separated by ``<|endoftext|>``), tinyshakespeare.txt
and tinystories_excerpt.txt, and of any further KIND a file KIND.txt with the same separator. ``run`` trains every
combination of what it is given, one after the other, and appends a line for each to benchmarks/own_text.jsonl; what is
there already is left out, so that a grid can grow. ``table`` sets the best of each text's grid beside what the rule of
`mlxstories.training.recommended` chooses, which is a cell like any other: ``run --texts ... --rule`` measures it.

Each text is one held-out tenth and nine tenths to train on. The figure is the lowest validation loss of the run, one
validation an epoch, times the held-out tokens, in bits for each held-out character.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tempfile
import time
from pathlib import Path

import click

RESULTS = Path(__file__).with_suffix(".jsonl")
MARK = "<|endoftext|>"
# pieces of books.txt: the Wizard of Oz, Alice in Wonderland, Dracula, the Count of Monte Cristo
BOOKS = {"oz": (0, 31), "alice": (31, 56), "dracula": (56, 190), "count": (200, 394)}
FACTORS = ("tokenizer", "vocab", "size", "context", "rows", "dropout", "epochs", "decay", "phase", "rest")


def text(folder: Path, name: str) -> str:
    """The text called KIND-KILOBYTES, as the file that a user would have: the first so many KB of a kind."""
    kind, _, kilobytes = name.partition("-")
    most = int(kilobytes) * 1000
    if kind == "play":
        return (folder / "tinyshakespeare.txt").read_text(encoding="utf-8")[:most]
    if kind == "tiny":
        return (folder / "tinystories_excerpt.txt").read_text(encoding="utf-8")[:most]
    if kind == "stories":
        from mlxstories.data import source

        pieces = source.texts(most // 300, 5)
    else:
        first, last = BOOKS.get(kind, (0, None))
        pieces = (
            (folder / ("books.txt" if kind in BOOKS else f"{kind}.txt"))
            .read_text(encoding="utf-8")
            .split(MARK)[first:last]
        )
    kept, length = [], 0
    for piece in pieces:
        kept.append(piece.strip())
        length += len(piece)
        if length > most:
            break
    return f"\n{MARK}\n".join(kept)


def measure(path: Path, cell: dict, seed: int) -> dict:
    """Train one cell on the text at ``path``: bits a held-out character, and what it took."""
    from mlxstories.data.dataset import DataConfig, load_dataset
    from mlxstories.data.tokenizer import END
    from mlxstories.model import shaped
    from mlxstories.runs.directory import Run
    from mlxstories.training.config import TrainingConfig
    from mlxstories.training.experiment import train
    from mlxstories.training.phases import PHASES, override

    changes = {"optimizer.weight_decay": cell["decay"], "optimizer.rest_learning_rate": cell["rest"]}
    phase = override(PHASES[cell["phase"]], changes)
    dataset = load_dataset(
        DataConfig(source=(str(path),), tokenizer=cell["tokenizer"], vocab_size=cell["vocab"])
    )
    parts = {"context": cell["context"], "dropout": cell["dropout"]}
    ours = {"qk_norm": phase.qk_norm, "separator": END}
    model = shaped(cell["size"], dataset.tokenizer.vocab_size, parts, ours)
    began = time.process_time()
    training = TrainingConfig(
        epochs=cell["epochs"], seed=seed, evaluations=1, keep=1, log_every=1000, batch_size=cell["rows"]
    )
    result = train(path.parent / "run", dataset, model, phase, training)
    seconds = time.process_time() - began
    records = [r for r in Run(path.parent / "run").metrics() if r["split"] == "val"]
    best = min(records, key=lambda record: record["loss"])
    characters = sum(map(len, dataset.val_texts))
    bits = dataset.val.targets / math.log(2) / characters
    return {
        "bits": best["loss"] * bits,
        "last": records[-1]["loss"] * bits,
        "best_epoch": round(best["epoch"]),
        "tokens": result["trained_tokens"],
        "updates": result["steps"],
        "parameters": result["parameters"],
        "vocabulary": dataset.tokenizer.vocab_size,
        "characters": characters,
        "cpu_seconds": round(seconds, 1),
    }


def chosen(name: str, rest: float | None = None) -> dict:
    """The cell that the rule takes for a text called KIND-KILOBYTES; ``rest``: the rate of AdamW's share."""
    from mlxstories.training.recommended import CONTEXT, DECAY, PHASE, recommended

    row = recommended(["x" * (int(name.partition("-")[2]) * 900)]).row
    training = (row.batch_size, row.dropout, row.epochs, DECAY, PHASE, rest)
    values = ("bpe", row.vocab_size, row.size, CONTEXT, *training)
    return dict(zip(FACTORS, values, strict=True))


def results() -> list[dict]:
    """What was measured; a line without ``rest`` was before there was one."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return [row | {"cell": {**row["cell"], "rest": row["cell"].get("rest")}} for row in rows]


def numbers(values: str) -> list:
    return [json.loads(value) if re.match(r"[\d.]+$|null$", value) else value for value in values.split(",")]


@click.group()
def main():
    """Which model suits a text of one's own."""


@main.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--texts", required=True, metavar="LIST")
@click.option("--tokenizer", default="bpe")
@click.option("--vocab", default="1024")
@click.option("--size", default="small")
@click.option("--context", default="256")
@click.option("--rows", default="4")
@click.option("--dropout", default="0.1")
@click.option("--epochs", default="10")
@click.option("--decay", default="0.01")
@click.option("--phase", default="3")
@click.option("--rest", default="null", help="Rate of AdamW's share; null: Muon's.")
@click.option("--rule", is_flag=True, help="Measure what the rule chooses, at each --rest.")
@click.option("--seed", default=0)
def run(data, texts, rule, seed, **factors):
    """Measure every combination of the values given, each a list separated by commas."""
    known = {json.dumps([row["text"], row["cell"], row["seed"]]) for row in results()}
    grid = [
        dict(zip(FACTORS, cell, strict=True))
        for cell in itertools.product(*(numbers(factors[f]) for f in FACTORS))
    ]
    names, rates = texts.split(","), numbers(factors["rest"])
    ruled = [(name, chosen(name, rate)) for name in names for rate in rates]
    for name, cell in ruled if rule else itertools.product(names, grid):
        if json.dumps([name, cell, seed]) in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text.txt"
            path.write_text(text(data, name), encoding="utf-8")
            found = measure(path, cell, seed)
        row = {"text": name, "cell": cell, "seed": seed, **found}
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        click.echo(
            f"{name} {cell} {found['bits']:.3f} at epoch {found['best_epoch']}, "
            f"last {found['last']:.3f}, {found['cpu_seconds']} s"
        )


@main.command()
def table():
    """The Markdown tables of docs/own_stories.md, of seed 0."""
    rows = [row for row in results() if row["seed"] == 0]
    names = dict.fromkeys(row["text"] for row in rows)
    print("| text | cells | best of the grid | bits | the rule | bits | above the best |\n|" + " --- |" * 7)
    for name in sorted(names, key=lambda name: (int(name.partition("-")[2]), name)):
        here = [row for row in rows if row["text"] == name]
        best = min(here, key=lambda row: row["bits"])
        rule = next((row for row in here if row["cell"] == chosen(name)), None)
        mine = f"{rule['bits']:.3f} | {rule['bits'] / best['bits'] - 1:.1%}" if rule else "not measured | "
        print(
            f"| {name} | {len(here)} | {words(best['cell'])} | {best['bits']:.3f} | {words(chosen(name))} | {mine} |"
        )
    print(
        "\n| text | what | bits | at epoch | after the last | tokens | updates | parameters | CPU s |\n|"
        + " --- |" * 9
    )
    for row in sorted(rows, key=lambda row: (int(row["text"].partition("-")[2]), row["text"], row["bits"])):
        print(
            f"| {row['text']} | {words(row['cell'])} | {row['bits']:.3f} | {row['best_epoch']} | {row['last']:.3f} | "
            f"{row['tokens']:,} | {row['updates']:,} | {row['parameters']:,} | {row['cpu_seconds']:.0f} |"
        )


def words(cell: dict) -> str:
    """A cell in a few words; what most cells share is left out."""
    parts = [cell["size"], f"{cell['tokenizer']} {cell['vocab']}", f"{cell['rows']} x {cell['context']}"]
    parts += [f"dropout {cell['dropout']}", f"{cell['epochs']} epochs"]
    parts += [f"decay {cell['decay']}"] if cell["decay"] != 0.01 else []
    parts += [f"rest {cell['rest']}"] if cell["rest"] else []
    return ", ".join([*parts, *(["phase 1"] if cell["phase"] == 1 else [])])


if __name__ == "__main__":
    main()
