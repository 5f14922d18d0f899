"""The project's own study: the phases, the full ablation, scales and real text, over five seeds.

    python benchmarks/study.py --books books.txt --readme

Trainings are kept in ``comparisons/`` and never repeated, so an interrupted study continues. Figures go to
``plots/gallery/``, results to ``plots/gallery/study.json``, the answer to the README between its markers.
"""

from __future__ import annotations

from pathlib import Path

import click
from faults import write_between

from mlxstories.comparison import Study, StudyConfig, arms
from mlxstories.comparison.cells import Setting
from mlxstories.comparison.document import markdown
from mlxstories.comparison.study import as_dict
from mlxstories.data.dataset import DataConfig
from mlxstories.plots.comparison import figures
from mlxstories.plots.style import save
from mlxstories.runs import write_json

GALLERY = Path(__file__).parent.parent / "plots" / "gallery"
SEEDS = range(5)
SCALES = (100, 300, 1000)
TITLES = {
    "ablation": "Why phase 2 ends where it does: every ingredient added and removed alone",
    "scale": "Three phases on 100, 300 and 1,000 stories",
    "updates": "Three phases at equal updates",
    "schedules": "Phase 1 under every schedule",
    "books": "Three phases on real text",
}


def built_in(stories: int, budget: str = "tokens") -> Setting:
    return Setting(DataConfig(stories=stories, validation=200), "debug", 1, 4, budget)


def studies(books: Path | None) -> dict[str, StudyConfig]:
    found = {
        "ablation": StudyConfig(arms.ablation(), [built_in(1000)], SEEDS),
        "scale": StudyConfig(arms.phases(), [built_in(stories) for stories in SCALES], SEEDS),
        "updates": StudyConfig(arms.phases(), [built_in(1000, "updates")], SEEDS),
        "schedules": StudyConfig(arms.schedules(), [built_in(1000)], SEEDS),
    }
    if books is not None:
        data = DataConfig(source=str(books), stories=600, validation=100, tokenizer="bpe", vocab_size=1024)
        found["books"] = StudyConfig(arms.phases(), [Setting(data, "debug", 1, 4, "tokens")], SEEDS)
    return found


@click.command()
@click.option("--books", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A text file.")
@click.option("--only", multiple=True, help="Parts of the study.")
@click.option("--store", default=Path("comparisons"), type=click.Path(path_type=Path))
@click.option("--jobs", type=click.IntRange(1), default=1)
@click.option("--readme", is_flag=True, help="Write the answer into README.md.")
def main(books, only, store, jobs, readme):
    """Run the study."""
    parts, sections = {}, ["Seeds 0 to 4, on Linux with two cores; figures in `plots/gallery/`.\n"]
    for name, config in studies(books).items():
        if only and name not in only:
            continue
        tables = Study(config, store, jobs, progress).run()
        parts[name] = as_dict(tables)
        sections.append(f"<details><summary>{TITLES[name]}</summary>\n\n{markdown(tables)}\n</details>\n")
        for figure_name, figure in figures(tables).items():
            save(figure, GALLERY / f"{name}-{figure_name}.png")
    write_json(GALLERY / "study.json", parts)
    text = "\n".join(sections)
    click.echo(text)
    if readme:
        write_between("study", text)


def progress(cell, result, done, total) -> None:
    click.echo(f"{done} of {total} {cell.arm.name} [{cell.seed}]: {result['loss']:.4f}", err=True)


if __name__ == "__main__":
    main()
