"""The project's own study: the phases, the full ablation, scales and real text, over five seeds.

    python benchmarks/study.py --books books.txt --docs

Trainings are kept in ``comparisons/`` and never repeated, so an interrupted study continues. Figures go to
``plots/gallery/``, results to ``plots/gallery/study.json``, the answer to docs/study.md between its
markers.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from faults import write_between

from mlxstories.comparison import Arm, Study, StudyConfig, arms
from mlxstories.comparison.cells import Setting
from mlxstories.comparison.document import markdown
from mlxstories.comparison.study import Row, Table, as_dict, tabulate
from mlxstories.data.dataset import DataConfig
from mlxstories.model.config import SIZES as SIZES_OF_MODELS
from mlxstories.plots.comparison import figures
from mlxstories.plots.style import save
from mlxstories.storage.files import write_json
from mlxstories.storage.serialize import from_dict
from mlxstories.training.phases import PHASE_1, override

GALLERY = Path(__file__).parent.parent / "plots" / "gallery"
SEEDS = range(5)
SCALES = (100, 1000, 10_000)
RATES = (1e-3, 3e-4, 3e-3, 1e-2)
SIZES = ("debug", "small", "base")
WIDTHS = (128, 256, 512)
TITLES = {
    "ablation": "Why phase 2 ends where it does: every ingredient added and removed alone",
    "updates": "Three phases at equal updates",
    "tuned": "Three phases, each at the best of three learning rates",
    "rates": "Phase 1 at four learning rates",
    "schedules": "Phase 1 under every schedule",
    "scale": "Three phases on 100, 1,000 and 10,000 stories for as many tokens",
    "sizes": "Three sizes on 300 stories, ten times",
    "widths": "Three widths on 300 stories, ten times",
    "books": "Three phases on real text",
}


def built_in(stories: int, epochs: int = 1, budget: str = "tokens") -> Setting:
    return Setting(DataConfig(stories=stories, validation=200), "debug", epochs, 4, budget)


def sizes() -> list[Arm]:
    """Phase 1 on models of every size: here the model is what differs."""
    return [Arm(name, PHASE_1, SIZES_OF_MODELS[name]) for name in SIZES]


def widths() -> list[Arm]:
    """Phase 1 on wider and wider models of two layers, heads of 32: here the model is what differs."""
    return [Arm(f"d {dim}", PHASE_1, {"dim": dim, "heads": dim // 32}) for dim in WIDTHS]


def rates() -> list[Arm]:
    return [Arm(f"rate {rate:g}", override(PHASE_1, {"optimizer.learning_rate": rate})) for rate in RATES]


def studies(books: Path) -> dict[str, StudyConfig]:
    data = DataConfig(source=str(books), stories=600, validation=100, tokenizer="bpe", vocab_size=1024)
    return {
        "ablation": StudyConfig(arms.ablation(), [built_in(1000)], SEEDS),
        "updates": StudyConfig(arms.phases(), [built_in(1000, budget="updates")], SEEDS),
        "tuned": StudyConfig(arms.phases(), [built_in(1000)], SEEDS, tune=True),
        "rates": StudyConfig(rates(), [built_in(1000)], SEEDS),
        "schedules": StudyConfig(arms.schedules(), [built_in(1000)], SEEDS),
        "scale": StudyConfig(arms.phases(), built_in(max(SCALES)).scaled(SCALES), SEEDS),
        "sizes": StudyConfig(sizes(), [built_in(300, epochs=10)], SEEDS),
        "widths": StudyConfig(widths(), [built_in(300, epochs=10)], SEEDS),
        "books": StudyConfig(arms.phases(), [Setting(data, "debug", 1, 4, "tokens")], SEEDS),
    }


@click.command()
@click.option("--books", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A text file.")
@click.option(
    "--only", multiple=True, help="Run these parts alone; those that need --books need it to be shown again."
)
@click.option("--store", default=Path("comparisons"), type=click.Path(path_type=Path))
@click.option("--jobs", type=click.IntRange(1), default=1)
@click.option("--docs", is_flag=True, help="Write the answer into docs/study.md.")
def main(books, only, store, jobs, docs):
    """Run the study; the parts that --only or a missing --books leaves out are taken from the last results."""
    file = GALLERY / "study.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    parts, sections = {}, ["Seeds 0 to 4, on Linux with two cores; figures in `plots/gallery/`.\n"]
    for name, config in studies(books or Path("books.txt")).items():
        if name in only if only else name != "books" or books:
            tables = Study(config, store, jobs, progress).run()
        elif name in earlier:
            tables = [again(found, config) for found in earlier[name]["settings"]]
        else:
            continue
        parts[name] = as_dict(tables)
        sections.append(f"## {TITLES[name]}\n\n{markdown(tables)}")
        for figure_name, figure in figures(tables).items():
            save(figure, GALLERY / f"{name}-{figure_name}.png")
    write_json(file, parts)
    text = "\n".join(sections)
    click.echo(text)
    if docs:
        write_between("study", text)


def again(found: dict, config: StudyConfig) -> Table:
    """A table from what study.json says of it."""
    setting = Setting(
        from_dict(DataConfig, found["data"], "study.json"),
        **{name: found[name] for name in ("size", "epochs", "batch_size", "budget")},
    )
    arms = {arm.name: arm for arm in config.arms}
    rows = []
    for row in found["arms"]:
        tuned = row["tuned"] and {float(rate): loss for rate, loss in row["tuned"].items()}
        arm = arms[row["name"]]
        if tuned:  # the best of the rates tried
            best = {"optimizer.learning_rate": min(tuned, key=tuned.get)}
            arm = dataclasses.replace(arm, phase=override(arm.phase, best))
        rows.append(Row(arm, row["results"], tuned=tuned))
    return tabulate(setting, rows)


def progress(cell, result, done, total) -> None:
    click.echo(f"{done} of {total} {cell.arm.name} [{cell.seed}]: {result['loss']:.4f}", err=True)


if __name__ == "__main__":
    main()
