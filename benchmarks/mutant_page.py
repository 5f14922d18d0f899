"""What became of mutants, in words and as a page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "mutants.md"
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
    known = [o for o in hurt if o["parts"]]
    mutants = [o for o in outcomes if o["mutant"]]
    others = sum(o["verdict"] == "does not run" for o in mutants)
    return (
        f"{len(mutants)} mutants of {sum(o['mutant'] is None for o in outcomes)} setups: {others} do not run, "
        f"{len(hurt)} hurt. Of these an error is found for {_of(map(error_of, hurt), len(hurt))}, an error or a warning "
        f"for {_of(map(told, hurt), len(hurt))}; the part is right for {_of(map(part_right, known), len(known))} "
        f"where it can be told, the line within {NEAR} for {_of(map(line_right, hurt), len(hurt))}. "
        f"Of {len(same)} equivalent ones that were climbed, {_of(map(error_of, same), len(same))} get an error."
    )


def page(outcomes: list[dict], seed: int, updates: int) -> str:
    hurt, same = hurting(outcomes), equivalent(outcomes)
    unseen = [o for o in hurt if told(o) is None]
    warned = [o for o in hurt if told(o) is not None and error_of(o) is None]
    elsewhere = [o for o in hurt if told(o) is not None and part_right(o) is False]
    accused = [o for o in same if error_of(o)]
    seconds = sum(o["seconds"] for o in outcomes)
    return "\n".join(
        [
            "# Mutants",
            "",
            "Mistakes that nobody chose: one place in the source of a sound setup, changed by an operator that a seed "
            "picks. Each mutant is trained for up to "
            f"{updates} updates on the batches of the original, and measured by our own cross-entropy on the original's "
            "held-out rows. It *hurts* where that loss is 3 % worse (or twice what another seed moves, where that is "
            "more), or as much better while the model sees what it must predict, or where a reported figure is off by "
            "3 %, or generated tokens are not the model's choice. It is *equivalent* within 1 %, or what another seed "
            "moves. The quick ladder climbs all that hurt, and a share of the equivalent ones, drawn by the seed; what "
            "lies between is left out. Written by `benchmarks/mutants.py`.",
            "",
            f"Seed {seed}, which was not used while the ladder was built; {seconds / 60:.0f} CPU minutes. These are few: "
            "a share of so few is known to within some 10 points.",
            "",
            in_words(outcomes),
            "",
            "## By operator",
            "",
            "| operator | hurt | error | error or warning | part | line | equivalent | accused |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *_rows("operator", outcomes),
            "",
            "## By setup",
            "",
            "| setup | hurt | error | error or warning | part | line | equivalent | accused |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *_rows("origin", outcomes),
            "",
            "The part is out of those whose line a part of the setup runs; the line is right within 3.",
            "",
            f"## Seen by nothing ({len(unseen)})",
            "",
            *_listed(unseen),
            f"## A warning alone ({len(warned)})",
            "",
            *_listed(warned),
            f"## Another part named ({len(elsewhere)})",
            "",
            *_listed(elsewhere),
            f"## Equivalent, and accused ({len(accused)})",
            "",
            *_listed(accused),
        ]
    ).rstrip() + "\n"


def _rows(key: str, outcomes: list[dict]) -> list[str]:
    def value(outcome: dict) -> str:
        return outcome["origin"] if key == "origin" else outcome["mutant"][key]

    lines = []
    mutants = hurting(outcomes) + equivalent(outcomes)
    for name in sorted({value(o) for o in mutants}):
        hurt, same = ([o for o in found if value(o) == name] for found in (hurting(outcomes), equivalent(outcomes)))
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
        lines += [
            f"{outcome['origin']}, {outcome['file']} line {mutant['line']}, {mutant['operator']}; {outcome['why']}; {said}",
            "",
            "```diff",
            *(f"- {line}" for line in mutant["before"].splitlines()),
            *(f"+ {line}" for line in mutant["after"].splitlines()),
            "```",
            "",
        ]
    return lines or ["None.", ""]


def _of(found: Iterable, count: int) -> str:
    hits = sum(map(bool, found))
    return f"{hits} of {count} ({hits / count:.0%})" if count else "0 of 0"
