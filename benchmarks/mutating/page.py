"""What became of mutants, in words and as a page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
NEAR = 3  # lines
RAISES = "subject-error"  # the code of what raises an exception
_LISTED = 15  # mutants of a kind, those that hurt most


def news(outcomes: list[dict]) -> list[dict]:
    """The outcomes, without findings whose code and severity the original gets, too."""
    own = {
        o["origin"]: {(f["code"], f["severity"]) for f in o.get("own", ())}
        for o in outcomes
        if not o["mutant"]
    }
    return [
        o
        | {
            "findings": [
                f for f in o["findings"] if (f["code"], f["severity"]) not in own.get(o["origin"], ())
            ]
        }
        if "findings" in o
        else o
        for o in outcomes
    ]


def found_deep(outcomes: list[dict]) -> list[dict]:
    """The same, with what the exchange found where it was asked; again without what it finds in the original."""
    own = {o["origin"]: set(map(_kind, _deep(o))) for o in outcomes if not o["mutant"]}
    return [
        o | {"findings": o["findings"] + [f for f in _deep(o) if _kind(f) not in own.get(o["origin"], ())]}
        if "findings" in o
        else o
        for o in news(outcomes)
    ]


def _deep(outcome: dict) -> list[dict]:
    """Findings of the exchange; none where its process ended otherwise."""
    found = outcome.get("deep", [])
    return found if isinstance(found, list) else []


def _kind(finding: dict) -> tuple[str, str, str]:
    return finding["code"], finding["severity"], finding["part"]


def error_of(outcome: dict) -> dict | None:
    """The first error found, the most likely cause."""
    return next((f for f in outcome.get("findings", ()) if f["severity"] == "error"), None)


def told(outcome: dict) -> dict | None:
    """The first finding that counts: an error, else a warning."""
    warnings = (f for f in outcome.get("findings", ()) if f["severity"] == "warning")
    return error_of(outcome) or next(warnings, None)


def part_right(outcome: dict) -> bool:
    """Whether the finding's part is one of those that run the mutated line."""
    found = told(outcome)
    return found is not None and found["part"] in outcome["parts"]


def line_right(outcome: dict) -> bool:
    found = told(outcome)
    near = found is not None and abs(found.get("line", -99) - outcome["mutant"]["line"]) <= NEAR
    return near and found.get("file") == outcome["file"]


def hurting(outcomes: Iterable[dict]) -> list[dict]:
    return [o for o in outcomes if o["mutant"] and o["verdict"] == "hurts"]


def equivalent(outcomes: Iterable[dict]) -> list[dict]:
    """Those that were climbed, of them those that train exactly as before."""
    return [o for o in outcomes if o["mutant"] and o["verdict"] != "hurts" and "findings" in o]


def in_words(outcomes: list[dict]) -> str:
    hurt, same = hurting(outcomes), equivalent(outcomes)
    mutants = [o for o in outcomes if o["mutant"]]
    fails, other, unchanged = (
        sum(o["verdict"] == kind for o in mutants) for kind in ("does not run", "another setup", "unchanged")
    )
    exact = sum(o["verdict"] == "unchanged" for o in same)
    scripts = sum(o["script"] for o in outcomes if not o["mutant"])
    spent = sum(o["seconds"] - o.get("climbed", 0) for o in mutants) / max(len(hurt), 1)
    climb = statistics.median([o["climbed"] for o in mutants if "climbed" in o] or [0])
    return (
        f"{len(mutants)} mutants of {len(outcomes) - len(mutants) - scripts} setups and {scripts} scripts: {fails} do "
        f"not run or not end, {other} are of another size, {unchanged} train exactly as before, {len(hurt)} hurt. Of "
        f"these an error is found for {_share(error_of, hurt)}, an error or a warning for {_share(told, hurt)}; the "
        f"part is right for {_share(part_right, hurt)}, the line within {NEAR} for {_share(line_right, hurt)}. Of "
        f"{len(same)} equivalent ones that were climbed ({exact} of them train exactly as before), "
        f"{_share(error_of, same)} get an error. Trials took "
        f"{spent:.1f} CPU seconds for each that hurts, climbs aside; the median climb took {climb:.1f}."
    )


def in_words_deep(outcomes: list[dict]) -> str:
    """What the second looks add; empty where there were none."""
    looks = [o["deep_seconds"] for o in outcomes if "deep" in o]
    if not looks:
        return ""
    both = found_deep(outcomes)
    hurt, same = hurting(both), equivalent(both)
    seen = [o for o in same if "deep" in o]
    accused = [o for o in same if error_of(o)]
    raised = [o for o in accused if error_of(o)["code"] == RAISES]
    longer = [o for o in accused if o not in raised and "longer" in o]
    later = [o for o in longer if o["longer"].get("verdict") == "hurts"]
    sampled = (
        f" Of {len(seen)} equivalent ones without an error of the list, drawn by the seed, "
        f"{_share(error_of, seen)} get one from it."
    )
    return (
        f"With `--deep` where the list finds no error: an error for {_share(error_of, hurt)}, an error or a warning "
        f"for {_share(told, hurt)}; the part is right for {_share(part_right, hurt)}, the line within {NEAR} for "
        f"{_share(line_right, hurt)}. It took {statistics.median(looks):.0f} CPU seconds in the median."
        f"{sampled if seen else ''} Of the {len(accused)} equivalent ones with an error from either {len(raised)} "
        f"raise an exception; of the others {len(longer)} were trained for four times the updates, and {len(later)} "
        "then hurt."
    )


_INTRO = """\
# Mutants

Mistakes that nobody chose: one place in the source of a sound setup is changed by an operator, such as another sign,
another axis or a deleted statement. Each of these *mutants* is trained beside its original. Of those that *hurt* the
table says how many the quick ladder finds, by an error or at least by a warning, how often it names the right part and
a line within {near} of the mistake; of those that are *equivalent*, since they train as well, how many it accuses.
[How a mutant is made and judged](#how-a-mutant-is-made-and-judged) stands below.

Each draw was climbed with the ladder as it was then, before anything was mended because of it; a second look with
`--deep` may have come later, which its section says:"""

_METHOD = """\
## How a mutant is made and judged

A seed draws the part (model, loss, step, data, evaluation, generation), the operator and the place. Each mutant is
trained for up to {updates} updates on its own batches, seeded as the original's, and measured by our own
cross-entropy on the original's held-out rows. It *hurts* where that loss is 3 % worse (or twice what another seed
moves, where that is more), or as much better while the model sees what it must predict, or where a reported figure is
off by 3 %, or generated tokens are not the model's choice. A training ends early where it is 30, 15 or 10 % behind
after one, two or three quarters, and where after 8 updates weights and batches are the original's to the last bit. A
mutant is *equivalent* where it ends within 1 % or what another seed moves, or trains exactly as before. The quick
ladder climbs all that hurt, and equivalent ones as long as they are fewer; what lies between is left out. Written by
`benchmarks/mutants.py`.

Another task is not a mistake, so two rules leave it out:

- Only lines are mutated that the model, the loss, the step, batching, evaluation or decoding run, and those that make
  an optimiser or its schedule. What runs as a file is imported, or builds the setup, reads texts, makes a vocabulary
  or a language, or cuts texts into rows before the first epoch, stays as it is.
- A mutant whose weights, batches or vocabulary have other sizes than the original's is another setup.

Not every mutant that hurts is a mistake all the same: Adam without its bias correction, say, only learns slower in so
few updates. Setups that share a file share no mutant. The part is right where it is one that runs the mutated line; in
a script's loop, which makes batches and updates in one, both `data` and `step` are. Line and part are those of the
first error, or else of the first warning; what the original gets, too, does not count. A training that takes three
times the original's CPU time counts as one that does not end. Mutants are few, so shares are rough; a run is gone on
with by the same command.

A second look, `benchmarks/mutants.py --deep`, runs the [exchange](deep.md) on all that hurt and get no error from the
list, and on a sample of equivalent ones without; and it trains equivalent ones with an error, and their originals, for
four times the updates, with validation after each quarter. Tables count both where a seed had one; what is listed was
missed or accused by both together."""


def page(runs: list[dict]) -> str:
    """The page: all runs in one table; then each, the newest last, in words, with tables to unfold; of the newest what
    was missed or accused as source diffs, of the others how many."""
    lines = [_INTRO.format(near=NEAR), "", *_overview(runs), ""]
    lines += [_METHOD.format(updates=runs[0]["updates"]), ""]
    for run in runs:
        lines += _of(run, diffs=run is runs[-1])
    return "\n".join(lines).rstrip() + "\n"


def _overview(runs: list[dict]) -> list[str]:
    """A row for each run, and one with the exchange where that was asked."""
    columns = (
        "seed",
        "mutants",
        "hurt",
        "error",
        "error or warning",
        "part",
        "line",
        "equivalent",
        "accused",
    )
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(columns))} |"]
    for run in runs:
        mutants = sum(bool(o["mutant"]) for o in run["outcomes"])
        named = f"[{run['seed']}](#seed-{run['seed']})"
        lines.append(_row(named, mutants, news(run["outcomes"])))
        if any("deep" in o for o in run["outcomes"]):
            lines.append(_row(f"{named} with `--deep`", mutants, found_deep(run["outcomes"])))
    return lines


def _row(named: str, mutants: int, outcomes: list[dict]) -> str:
    hurt, same = hurting(outcomes), equivalent(outcomes)
    found = (_percent(hit, hurt) for hit in (error_of, told, part_right, line_right))
    cells = (named, mutants, len(hurt), *found, len(same), _percent(error_of, same))
    return f"| {' | '.join(map(str, cells))} |"


def _percent(hit: Callable, outcomes: list[dict]) -> str:
    hits = sum(bool(hit(outcome)) for outcome in outcomes)
    return f"{hits} ({hits / len(outcomes):.0%})" if outcomes else "0"


def _folded(title: str, lines: list[str]) -> list[str]:
    """Lines that a reader unfolds."""
    return ['<details markdown="1">', f"<summary>{title}</summary>", "", *lines, "</details>", ""]


def _of(run: dict, *, diffs: bool) -> list[str]:
    outcomes, seed, both = news(run["outcomes"]), run["seed"], found_deep(run["outcomes"])
    hurt, same = hurting(both), equivalent(both)
    listed = {
        "Seen by nothing": [o for o in hurt if told(o) is None],
        "A warning alone": [o for o in hurt if told(o) is not None and error_of(o) is None],
        "Another part named": [o for o in hurt if told(o) is not None and not part_right(o)],
        "Equivalent, and accused": [o for o in same if error_of(o)],
    }
    note = [f"{run['note'].rstrip('.')}.", ""] if run["note"] else []
    lines = [f"## Seed {seed}", "", *note, in_words(outcomes), ""]
    second = in_words_deep(run["outcomes"])
    lines += [second, ""] if second else []
    for key in ("operator", "setup"):
        lines += _folded(f"By {key}", [*_table(key, outcomes, both, deep=bool(second)), ""])
    if not diffs:
        counts = [f"{title.lower()}: {len(found)}" for title, found in listed.items()]
        return [*lines, f"{'; '.join(counts).capitalize()}.", ""]
    for title, found in listed.items():
        lines += [f"### {title}: {len(found)}, seed {seed}", "", *_folded("As diffs", _listed(found))]
    return lines


def _table(key: str, outcomes: list[dict], both: list[dict], *, deep: bool) -> list[str]:
    """By kind: the errors of the list, and what it and the exchange find together."""

    def value(outcome: dict) -> str:
        return outcome["origin"] if key == "setup" else outcome["mutant"][key]

    counted = {"error": error_of} if deep else {}
    counted |= {
        "or by `--deep`" if deep else "error": error_of,
        "error or warning": told,
        "part": part_right,
        "line": line_right,
    }
    columns = [key, "hurt", *counted, "equivalent", "accused"]
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(columns))} |"]
    for name in sorted({value(o) for o in hurting(both) + equivalent(both)}):
        hurt, same = ([o for o in found if value(o) == name] for found in (hurting(both), equivalent(both)))
        counts = [sum(map(bool, map(f, hurt))) for f in counted.values()]
        if deep:
            counts[0] = sum(error_of(o) is not None for o in hurting(outcomes) if value(o) == name)
        accused = sum(map(bool, map(error_of, same)))
        lines.append(f"| {name} | {' | '.join(map(str, [len(hurt), *counts, len(same), accused]))} |")
    return lines


def _harm(outcome: dict) -> float:
    """By how much the held-out loss is worse; what reports alone show comes last."""
    worse = outcome["loss"] / outcome["original"] - 1
    return worse if worse == worse else float("inf")


def _listed(outcomes: list[dict]) -> list[str]:
    """Source diffs, with what was measured and what was said; the worst first."""
    lines = []
    for outcome in sorted(outcomes, key=_harm, reverse=True)[:_LISTED]:
        mutant, found = outcome["mutant"], told(outcome)
        said = "nothing" if found is None else f"{found['severity']} `{found['code']}` ({found['part']})"
        place = f"{outcome['origin']}, {outcome['file']} line {mutant['line']}, {mutant['operator']}"
        lines += [f"{place}; {outcome['why']}; {said}", "", "```diff", *mutant["diff"], "```", ""]
    if len(outcomes) > _LISTED:
        lines += [f"And {len(outcomes) - _LISTED} that hurt less.", ""]
    return lines or ["None.", ""]


def _share(hit: Callable, outcomes: list[dict]) -> str:
    hits = sum(bool(hit(outcome)) for outcome in outcomes)
    return f"{hits} of {len(outcomes)} ({hits / len(outcomes):.0%})" if outcomes else "0 of 0"
