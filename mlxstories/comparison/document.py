"""A comparison as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlxstories.comparison.arms import changed
from mlxstories.comparison.conclusion import answer
from mlxstories.comparison.study import Row, Table

COLUMNS = (
    "arm",
    "loss",
    "bits/char",
    "accuracy",
    "of the ceiling",
    "distinct-2",
    "repeated-4",
    "tokens",
    "updates",
    "seconds",
    "verdict",
)


def markdown(tables: Sequence[Table]) -> str:
    """Every setting with its table, what the arms differ in, and the answer in words."""
    return "\n\n".join(_setting(table) for table in tables) + "\n"


def _setting(table: Table) -> str:
    seeds = ", ".join(str(result["seed"]) for result in table.rows[0].results)
    lines = [
        f"### {title(table)}",
        "",
        f"Seeds {seeds}; means over seeds with 95 % intervals. Verdicts are on the paired difference in "
        "loss; all of a table's are right together with 95 % (Holm).",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(table, row))} |" for row in table.rows),
        "",
        *differing(table),
        "",
        answer(table),
    ]
    return "\n".join(lines)


def title(table: Table) -> str:
    setting = table.setting
    data = setting.data
    count = "all" if data.stories is None else f"{data.stories:,}"
    files = data.source if isinstance(data.source, str) else ", ".join(data.source)
    stories = f"{count} built-in stories" if files == "stories" else f"{count} stories of {Path(files).name}"
    times = "once" if setting.epochs == 1 else f"{setting.epochs} times"
    return f"{stories} {times}, size {setting.size}, equal {setting.budget}"


def cells(table: Table, row: Row) -> list[str]:
    """A row of the table, in the order of ``COLUMNS``."""
    first = row.results[0]
    # the ceiling is that of next tokens, which an encoder does not predict
    known = table.ceiling if row.arm.arch == "decoder" else None
    ceiling = known and f"{row.estimate('accuracy').mean / known:.1%}"
    verdict = (
        row.differences["loss"].verdict
        if row.differences
        else "reference"
        if row is table.rows[0]
        else "not comparable"
    )
    return [
        row.arm.name,
        _number(row, "loss", "{:.3f}"),
        _number(row, "bits_per_character", "{:.3f}"),
        _number(row, "accuracy", "{:.1%}"),
        ceiling or "?",
        _number(row, "distinct_2", "{:.2f}"),
        _number(row, "repeated_4", "{:.2f}"),
        f"{first['tokens']:,}",
        f"{first['updates']:,}",
        _number(row, "seconds", "{:.0f}"),
        verdict,
    ]


def differing(table: Table) -> list[str]:
    """For each arm, exactly the fields in which it differs from the reference."""
    reference = table.rows[0].arm
    lines = []
    for row in table.rows[1:]:
        fields = "; ".join(
            f"{path} {_plain(b)} for {_plain(a)}" for path, (a, b) in changed(reference, row.arm).items()
        )
        tuned = (
            ""
            if not row.tuned
            else f" (rates tried: {', '.join(f'{r:g}: {v:.3f}' for r, v in row.tuned.items())})"
        )
        lines.append(f"- {row.arm.name}: {fields or 'nothing'}{tuned}")
    return lines


def _plain(value) -> str:
    return "the study's own" if value is None else str(value)


def _number(row: Row, name: str, form: str) -> str:
    found = row.estimate(name)
    if found is None:
        return "–"
    half = "" if found.half is None or name == "seconds" else f" ± {form.format(found.half)}"
    return form.format(found.mean) + half
