"""The drawings of a report, each with what it shows in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlxstories.comparison.study import Table
from mlxstories.plots import comparison, curves
from mlxstories.plots.report.svg import Drawing, drawing
from mlxstories.plots.runs import Curves


def of_runs(runs: Sequence[Curves]) -> list[Drawing]:
    """Loss, accuracy, learning rate and gradient norms; several runs share each figure.

    Raises:
        StoriesError: more runs than colours that can be told apart.
    """
    drawn = curves.figures(runs, "updates")
    facts = {f"{run.label}: {run.facts}" for run in runs} if len(runs) == 1 else set()
    for figure in drawn.values():  # the page tells the facts of a single run once
        figure.caption = [line for line in figure.caption if line[0] not in facts]
    return [drawing(name, figure, _ALTERNATIVES[name](runs)) for name, figure in drawn.items()]


def of_tables(tables: Sequence[Table]) -> dict[str, Drawing]:
    """Every figure of a comparison by name."""
    return {
        name: drawing(name, figure, _comparison(name, tables))
        for name, figure in comparison.figures(tables).items()
    }


def _comparison(name: str, tables: Sequence[Table]) -> str:
    kind, _, number = name.partition("-")
    table = tables[int(number) - 1 if number.isdigit() else 0]
    arms = ", ".join(f"{row.arm.name} {row.estimate('loss').mean:.3f}" for row in table.rows)
    if kind == "differences":
        found = [
            f"{r.arm.name} {r.differences['loss'].estimate.mean:+.3f}" for r in table.rows if r.differences
        ]
        return f"Difference in loss from {table.rows[0].arm.name}, in nats per token: {', '.join(found)}."
    if kind == "rates":
        return "Loss by learning rate tried, for every arm; the least was taken."
    if kind == "scale":
        return "Final loss of every arm over the number of training stories, with intervals."
    return f"Validation loss over tokens, with intervals over seeds; it ends, in nats per token, at: {arms}."


def _splits(runs: Sequence[Curves], name: str, form: str) -> str:
    found = []
    for run in runs:
        ends = [f"training {format(run.train[name][-1], form)}"]
        if len(run.val[name]):
            ends.append(f"validation {format(run.val[name][-1], form)}")
        found.append(f"{run.label}: {', '.join(ends)}")
    return "; ".join(found)


def _loss(runs: Sequence[Curves]) -> str:
    floors = sorted({run.floor for run in runs if run.floor is not None})
    floor = f" The floor is {', '.join(f'{value:.3f}' for value in floors)}." if floors else ""
    return f"Loss over updates, in nats per token. It ends at: {_splits(runs, 'loss', '.3f')}.{floor}"


def _accuracy(runs: Sequence[Curves]) -> str:
    ceilings = sorted({run.ceiling for run in runs if run.ceiling is not None})
    ceiling = f" The ceiling is {', '.join(f'{value:.1%}' for value in ceilings)}." if ceilings else ""
    return (
        f"Accuracy of the next token over updates. It ends at: {_splits(runs, 'accuracy', '.1%')}.{ceiling}"
    )


def _learning_rate(runs: Sequence[Curves]) -> str:
    found = []
    for run in runs:
        rates = run.train["learning_rate"]
        early = "".join(
            f", cooled down from the weights of step {one['weights_of']:,} after {one['step']:,} updates"
            for one in run.cooldowns
        )
        found.append(f"{run.label} peaks at {np.nanmax(rates):.2e} and ends at {rates[-1]:.2e}{early}")
    return f"Learning rate over updates: {'; '.join(found)}."


def _gradient_norm(runs: Sequence[Curves]) -> str:
    found = []
    for run in runs:
        norms = run.train["grad_norm"]
        least, most = np.nanmin(norms), np.nanmax(norms)
        found.append(f"{run.label} between {least:.3g} and {most:.3g}, {norms[-1]:.3g} at the end")
    return f"Gradient norm before clipping over updates: {'; '.join(found)}."


_ALTERNATIVES = {
    "loss": _loss,
    "accuracy": _accuracy,
    "learning_rate": _learning_rate,
    "gradient_norm": _gradient_norm,
}
