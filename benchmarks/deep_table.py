"""What `debug --deep` said of cases with known answers, in words and as a table."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from dataclasses import dataclass

_HURTS = 0.03  # more loss than a mended mate, from which a fault counts as one that hurts training
_MEASURED = re.compile(r"val ([0-9.]+), mended ([0-9.]+)")


@dataclass(frozen=True)
class Judged:
    """What `--deep` said of a case.

    Attributes:
        case: file and function.
        why: what is wrong with it, or odd.
        want: codes that name it; none for a sound setup.
        parts: of the setup, in which a cause of these codes lies.
        mate: the sound case that differs from it in the mistake alone, where there is one.
        alone: whether the ladder only looked at the data.
        errors, warnings: (code, part, message), most likely cause first.
        exchanged: the same of what the exchange found, folded or not, with severity for code.
        losses: held out, by training.
        climb, exchange: CPU seconds.
    """

    case: str
    why: str
    want: list[str]
    parts: list[str]
    mate: str | None
    alone: bool
    errors: list[list[str]]
    warnings: list[list[str]]
    exchanged: list[list[str]]
    losses: dict[str, float]
    climb: float
    exchange: float

    @property
    def as_it_is(self) -> float:
        return self.losses.get("as it is", float("inf"))

    @property
    def part_right(self) -> bool:
        return any(severity == "error" and part in self.parts for severity, part, _ in self.exchanged)


def parts_of(codes: list[str]) -> list[str]:
    """The parts in which these causes lie; what an exchange finds in any part tells none."""
    from mlxstories.findings import CATALOGUE, cause_of

    named = [code for code in codes if code in CATALOGUE and code != "behind-reference"]
    return sorted({cause_of(code).part for code in named or codes if code in CATALOGUE})


def hurts(fault: Judged, by_case: dict[str, Judged]) -> float | None:
    """How much more loss a fault leaves than its mate, or less, as a share; None where neither the mate was judged nor
    the harm was measured before, as it has to be where a fault's own validation rows are at fault."""
    mate, measured = by_case.get(fault.mate or ""), _MEASURED.search(fault.why)
    apart = [abs(fault.as_it_is / mate.as_it_is - 1)] if mate is not None else []
    apart += [float(measured[1]) / float(measured[2]) - 1] if measured else []
    return max(apart, default=None)


def verdict(result: Judged) -> str:
    """What the exchange makes of a fault: the best that it says."""
    for severity in ("error", "warning"):
        told = [part in result.parts for one, part, _ in result.exchanged if one == severity]
        if told:
            return severity if any(told) else "another part"
    return "nothing"


def in_words(results: list[Judged]) -> str:
    by_case = {r.case: r for r in results}
    sound, faults = [r for r in results if not r.want], [r for r in results if r.want]
    harm = {r.case: hurts(r, by_case) for r in faults}
    hurting = [r for r in faults if (harm[r.case] or 0) >= _HURTS]
    seconds = sorted(r.exchange for r in results)
    lines = [
        f"{len(sound)} sound setups: {sum(bool(r.errors) for r in sound)} accused, "
        f"{sum(bool(r.warnings) for r in sound)} with a warning.",
        f"{len(faults)} faults: {_counts(faults)}.",
    ]
    if hurting:
        lines.append(
            f"{len(hurting)} of them are {_HURTS:.0%} or more away from the loss of a mended mate: "
            f"{_counts(hurting)}."
        )
    lines.append(
        f"CPU seconds of an exchange: median {statistics.median(seconds):.0f}, at most {seconds[-1]:.0f}."
    )
    return " ".join(lines)


def _counts(faults: list[Judged]) -> str:
    told = Counter(verdict(r) for r in faults)
    return (
        f"for {told['error']} the exchange alone accuses the right part, for {told['warning']} it warns of it, "
        f"for {told['another part']} it tells of another part, for {told['nothing']} of nothing"
    )


def together(results: list[Judged], quick: list[dict]) -> str:
    """What the quick ladder and the exchange tell of faults, given the outcomes of `benchmarks/public_bugs.py`."""
    from mlxstories.findings import cause_of

    by_case, told = {r.case: r for r in results}, Counter()
    for one in (q for q in quick if q["want"]):
        parts = {*parts_of(one["want"])}
        codes = one["errors"][:1] + (one["warnings"] if one["warned"] else [])
        exchanged = by_case.get(one["case"])
        if {*codes} & {*one["want"]}:
            told["code"] += 1
        elif {cause_of(code).part for code in one["errors"][:1]} & parts:
            told["part"] += 1
        else:
            told[verdict(exchanged) if exchanged is not None else "nothing"] += 1
    return (
        f"Of {sum(told.values())} faults the ladder names {told['code']} by their code, and of {told['part']} the part "
        f"alone; of the others the exchange accuses the right part of {told['error']} and warns of that of "
        f"{told['warning']}; {told['nothing'] + told['another part']} are left."
    )


def table(results: list[Judged]) -> list[str]:
    """The faults, misses included, and the sound setups of which anything was said."""
    by_case = {r.case: r for r in results}
    lines = _lines(["fault", "as it is", "mended", "all plain", "part", "the exchange alone says"])
    for fault in (r for r in results if r.want):
        lines += _lines(
            [
                re.split(r"; | \(", fault.why)[0],
                _loss(fault, "as it is"),
                _mended(fault, by_case.get(fault.mate or "")),
                _loss(fault, "all plain"),
                ", ".join(fault.parts),
                _said(fault),
            ],
            head=False,
        )
    told = [r for r in results if not r.want and (r.errors or r.warnings)]
    if not told:
        return [*lines, "", "Of no sound setup was anything said."]
    lines += [
        "",
        "Sound setups of which something was said:",
        "",
        *_lines(["sound", "as it is", "all plain", "says"]),
    ]
    for sound in told:
        said = [("error", *rest) for _, *rest in sound.errors] + [
            ("warning", *rest) for _, *rest in sound.warnings
        ]
        losses = [_loss(sound, "as it is"), _loss(sound, "all plain")]
        words = "; ".join(short(*one) for one in said)
        lines += _lines([sound.case.rpartition(":")[2], *losses, words], head=False)
    return lines


def _lines(cells: list[str], *, head: bool = True) -> list[str]:
    line = "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
    return [line, "| --- " * len(cells) + "|"] if head else [line]


def _mended(fault: Judged, mate: Judged | None) -> str:
    """The loss of the mended setup; where it was measured elsewhere, beside the fault's there."""
    if mate is not None:
        return _loss(mate, "as it is")
    measured = _MEASURED.search(fault.why)
    return f"{measured[2]}, of {measured[1]}" if measured else ""


def _said(fault: Judged) -> str:
    words = "; ".join(short(*one) for one in fault.exchanged) or "nothing"
    return words if fault.part_right else f"**{words}**"


def short(severity: str, part: str, message: str) -> str:
    change, proved, losses = message.partition(" the held-out loss is ")
    return f"{severity}, {part}" + (f": {losses.split()[0]} {change}" if proved else "")


def _loss(result: Judged, name: str) -> str:
    loss = result.losses.get(name)
    return "" if loss is None else f"{loss:.3f}"
