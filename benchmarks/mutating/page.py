"""What became of mutants, in words and as a page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
NEAR = 3  # lines


def error_of(outcome: dict) -> dict | None:
    """The first error found, the most likely cause."""
    return next((f for f in outcome.get("findings", ()) if f["severity"] == "error"), None)


def told(outcome: dict) -> dict | None:
    """The first finding that counts: an error, else a warning."""
    warnings = (f for f in outcome.get("findings", ()) if f["severity"] == "warning")
    return error_of(outcome) or next(warnings, None)


def part_right(outcome: dict) -> bool | None:
    """Whether the finding's part is the mutated line's; None where no part runs that line."""
    found = told(outcome)
    return None if not outcome["parts"] else found is not None and found["part"] in outcome["parts"]


def line_right(outcome: dict) -> bool:
    found = told(outcome)
    near = found is not None and abs(found.get("line", -99) - outcome["mutant"]["line"]) <= NEAR
    return near and found.get("file") == outcome["file"]


def hurting(outcomes: Iterable[dict]) -> list[dict]:
    return [o for o in outcomes if o["mutant"] and o["verdict"] == "hurts"]


def equivalent(outcomes: Iterable[dict]) -> list[dict]:
    """Those that were climbed."""
    return [o for o in outcomes if o["mutant"] and o["verdict"] == "equivalent" and "findings" in o]


def in_words(outcomes: list[dict]) -> str:
    hurt, same = hurting(outcomes), equivalent(outcomes)
    mutants = [o for o in outcomes if o["mutant"]]
    known = [o for o in hurt if o["parts"]]
    fails, unchanged = (sum(o["verdict"] == kind for o in mutants) for kind in ("does not run", "unchanged"))
    return (
        f"{len(mutants)} mutants of {len(outcomes) - len(mutants)} setups: {fails} do not run or not end, {unchanged} "
        f"train exactly as before, {len(hurt)} hurt. Of these an error is found for {_share(error_of, hurt)}, an error "
        f"or a warning for {_share(told, hurt)}; the part is right for {_share(part_right, known)} where it can be "
        f"told, the line within {NEAR} for {_share(line_right, hurt)}. Of {len(same)} equivalent ones that were "
        f"climbed, {_share(error_of, same)} get an error."
    )


_METHOD = """\
Mistakes that nobody chose: one place in the source of a sound setup, changed by an operator that a seed picks. Each
mutant is trained for up to {updates} updates on its own batches, seeded as the original's, and measured by our own
cross-entropy on the original's held-out rows. It *hurts* where that loss is 3 % worse (or twice what another seed
moves, where that is more), or as much better while the model sees what it must predict, or where a reported figure is
off by 3 %, or generated tokens are not the model's choice. It is *equivalent* where it trains differently, and ends
within 1 % or what another seed moves. The quick ladder climbs all that hurt, and a share of the equivalent ones, drawn
by the seed; what lies between is left out. Written by `benchmarks/mutants.py`.

Seed {seed}; the ladder was built while seed 0 was looked at. {minutes:.0f} CPU minutes; the median climb took
{climb:.0f} s. They are few, so that the shares are rough. Not every mutant that hurts is a mistake: a tied embedding
may only learn slower in so few updates, and one that is trained on another text, or another made-up language, is
measured on the original's all the same."""


def page(outcomes: list[dict], seed: int, updates: int) -> str:
    """The page: figures, tables by operator and by setup, and what was missed or accused as source diffs."""
    hurt, same = hurting(outcomes), equivalent(outcomes)
    minutes = sum(o["seconds"] for o in outcomes) / 60
    listed = {
        "Seen by nothing": [o for o in hurt if told(o) is None],
        "A warning alone": [o for o in hurt if told(o) is not None and error_of(o) is None],
        "Another part named": [o for o in hurt if told(o) is not None and part_right(o) is False],
        "Equivalent, and accused": [o for o in same if error_of(o)],
    }
    climb = statistics.median([o["climbed"] for o in outcomes if "climbed" in o] or [0])
    lines = [
        "# Mutants",
        "",
        _METHOD.format(updates=updates, seed=seed, minutes=minutes, climb=climb),
        "",
        in_words(outcomes),
        "",
    ]
    for key in ("operator", "setup"):
        lines += [
            f"## By {key}",
            "",
            f"| {key} | hurt | error | error or warning | part | line | equivalent | accused |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *_rows(key, outcomes),
            "",
        ]
    lines += ["The part is out of those whose line some part of the setup runs.", ""]
    for title, found in listed.items():
        lines += [f"## {title} ({len(found)})", "", *_listed(found)]
    return "\n".join(lines).rstrip() + "\n"


def _rows(key: str, outcomes: list[dict]) -> list[str]:
    def value(outcome: dict) -> str:
        return outcome["origin"] if key == "setup" else outcome["mutant"][key]

    lines = []
    mutants = hurting(outcomes) + equivalent(outcomes)
    for name in sorted({value(o) for o in mutants}):
        hurt, same = (
            [o for o in found if value(o) == name] for found in (hurting(outcomes), equivalent(outcomes))
        )
        known = [o for o in hurt if o["parts"]]
        counts = [len(hurt), *(sum(map(bool, map(f, hurt))) for f in (error_of, told))]
        part = f"{sum(map(bool, map(part_right, known)))} of {len(known)}"
        line = sum(map(line_right, hurt))
        accused = sum(map(bool, map(error_of, same)))
        lines.append(f"| {name} | {' | '.join(map(str, [*counts, part, line, len(same), accused]))} |")
    return lines


def _listed(outcomes: list[dict]) -> list[str]:
    """Source diffs, with what was measured and what was said."""
    lines = []
    for outcome in outcomes:
        mutant, found = outcome["mutant"], told(outcome)
        said = "nothing" if found is None else f"{found['severity']} `{found['code']}` ({found['part']})"
        place = f"{outcome['origin']}, {outcome['file']} line {mutant['line']}, {mutant['operator']}"
        lines += [f"{place}; {outcome['why']}; {said}", "", "```diff", *mutant["diff"], "```", ""]
    return lines or ["None.", ""]


def _share(hit: Callable, outcomes: list[dict]) -> str:
    hits = sum(bool(hit(outcome)) for outcome in outcomes)
    return f"{hits} of {len(outcomes)} ({hits / len(outcomes):.0%})" if outcomes else "0 of 0"
