"""The answer of a comparison in words, from what was measured alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlxstories.comparison.arms import INGREDIENTS
from mlxstories.comparison.statistics import LEVEL, Estimate, estimate
from mlxstories.comparison.study import Row, Table, comparable


@dataclass(frozen=True)
class Effect:
    """What an ingredient does to the loss, in nats per token, over seeds.

    Attributes:
        added: alone to phase 1.
        removed: the rise of phase 2's loss over that of phase 2 without it.
        share: mean of both, the ingredient's part in the difference between the phases. It is the Shapley
            value of two ingredients; with more it leaves a remainder, which is reported.
    """

    name: str
    added: Estimate
    removed: Estimate
    share: Estimate


def effects(table: Table) -> list[Effect]:
    """Every ingredient's effect, largest first; empty where the table is no ablation."""
    names = {row.arm.name for row in table.rows}
    wanted = {f"phase 1 + {name}" for name in INGREDIENTS} | {f"phase 2 - {name}" for name in INGREDIENTS}
    if not wanted <= names:
        return []
    one, two = (table.row(f"phase {n}").values("loss") for n in (1, 2))
    found = []
    for name in INGREDIENTS:
        with_it, without = (
            table.row(f"phase {sign}").values("loss") for sign in (f"1 + {name}", f"2 - {name}")
        )
        added, removed = np.subtract(with_it, one), np.subtract(two, without)
        found.append(Effect(name, estimate(added), estimate(removed), estimate((added + removed) / 2)))
    return sorted(found, key=lambda effect: -abs(effect.share.mean))


def answer(table: Table) -> str:
    """One paragraph on a setting: who wins by how much, and why where an ablation says so."""
    reference = table.rows[0]
    sentences = [_heading(table)]
    found = effects(table)
    rows = [table.row("phase 2")] if found else table.rows[1:]
    for row in rows:
        sentences.append(_against(row, reference))
    if found:
        sentences += _why(table, found)
    return " ".join(sentences)


def _heading(table: Table) -> str:
    setting, seeds = table.setting, len(table.rows[0].results)
    floor = "" if table.floor is None else f", floor {table.floor:.3f} nats"
    return f"At equal {setting.budget}, over {seeds} seed{'s' * (seeds > 1)}{floor}:"


def _against(row: Row, reference: Row) -> str:
    if not comparable(row.arm, reference.arm):
        return (
            f"{row.arm.name} cannot be compared with {reference.arm.name}: the loss of one is over masked tokens seen "
            "from both sides, that of the other over next tokens."
        )
    found = row.differences["loss"]
    nats, half = found.estimate.mean, found.estimate.half
    interval = "" if half is None else f" ± {half:.3f}"
    direction = "below" if nats < 0 else "above"
    text = f"{row.arm.name} ends {abs(nats):.3f}{interval} nats {direction} {reference.arm.name}: {found.verdict}"
    if found.verdict != "undecided":
        return text + "."
    if found.estimate.n < 2:
        return text + " (one seed decides nothing)."
    if nats == 0:
        return text + " (they are the same)."
    if found.p_value < 1 - LEVEL:
        return text + " (alone it would be decided, among this table's comparisons it is not)."
    return text + f" ({found.seeds_to_decide or 'over 1000'} seeds would decide it)."


def _why(table: Table, found: list[Effect]) -> list[str]:
    total = table.row("phase 2").differences["loss"].estimate.mean
    updates = [table.row(f"phase {n}").results[0]["updates"] for n in (1, 2)]
    parts = []
    for effect in found:
        halved = effect.name == "accumulation" and updates[1] < updates[0]
        note = f" (it leaves {updates[1] / updates[0]:.0%} of the updates)" if halved else ""
        parts.append(f"{_signed(effect.share)} {effect.name}{note}")
    rest = total - sum(effect.share.mean for effect in found)
    sentences = [
        f"Of the {total:+.3f} nats, {', '.join(parts)}; {rest:+.3f} is left to how they act together."
    ]
    for n in (1, 2):
        without, base = table.row(f"phase {n} - bias correction"), table.row(f"phase {n}")
        change = estimate(np.subtract(without.values("loss"), base.values("loss")))
        sentences.append(f"Without bias correction phase {n} changes by {_signed(change)} nats.")
    return sentences


def _signed(found: Estimate) -> str:
    return f"{found.mean:+.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")
