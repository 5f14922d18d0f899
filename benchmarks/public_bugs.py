"""Re-creations of public bug reports through the ladder: the table of docs/public_bugs.md, misses included.

    python benchmarks/public_bugs.py benchmarks/reported --docs docs/reported_bugs.md
    python benchmarks/public_bugs.py benchmarks/reported/second --docs docs/reported_bugs.md

The folder holds subjects in Python files and an ``expected.json`` of
``{"file.py:function": {"want": [codes], "severity": "error" or "warning", "why": text, "source": url}}``; an empty
``want`` is a sound setup, on which any error is a false alarm. A fault is found when its first error is one of the
codes; where a warning is wanted, when a warning is. A source that is not given is read from the function's docstring.
``first`` are the errors that the ladder found when it was shown the case before anybody had looked at it. Of a page
that has a part marked with the folder's name, that part alone is written.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import click

# Threads that wait for each other cost tenfold where processes share cores, and small matrices gain nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_URL = re.compile(r"https?://[^\s,;)]+")


@dataclass(frozen=True)
class Outcome:
    """What the ladder said of a case.

    Attributes:
        case: file and function.
        why: what is wrong with it, or odd.
        sources: where it was reported.
        want: codes that name it; none for a sound setup.
        warned: whether a warning is enough.
        errors, warnings: codes found, most likely cause first.
        seconds: CPU time of the climb.
        first: errors found before the case was looked at, where that was kept.
    """

    case: str
    why: str
    sources: list[str]
    want: list[str]
    warned: bool
    errors: list[str]
    warnings: list[str]
    seconds: float
    first: list[str] | None = None

    @property
    def right(self) -> bool:
        if not self.want:
            return not self.errors
        told = self.errors[:1] + (self.warnings if self.warned else [])
        return bool({*told} & {*self.want})


def load(path: Path, modules: dict[Path, ModuleType]) -> ModuleType:
    """The module of a file, imported once."""
    if path not in modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        modules[path] = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = modules[path]
        spec.loader.exec_module(modules[path])
    return modules[path]


def examine(folder: Path, name: str, expected: dict, modules: dict[Path, ModuleType], seed: int) -> Outcome:
    """Climb one case; an exception of the ladder counts as an error of the name "crash"."""
    from mlxstories.ladder import diagnose

    file, _, function = name.partition(":")
    make = getattr(load(folder / file, modules), function)
    given = expected.get("source") or make.__doc__ or ""
    begun = time.process_time()
    try:
        found = [(f.severity, f.code) for f in diagnose(make(), seed=seed).findings]
    except Exception as error:
        click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
        found = [("error", "crash")]
    return Outcome(
        case=name,
        why=expected.get("why") or "",
        sources=_URL.findall(given if isinstance(given, str) else " ".join(given)),
        want=expected["want"],
        warned=expected.get("severity") == "warning",
        errors=[code for severity, code in found if severity == "error"],
        warnings=[code for severity, code in found if severity == "warning"],
        seconds=time.process_time() - begun,
        first=expected.get("first"),
    )


def recalled(known: dict, expected: dict) -> Outcome:
    """An outcome of an earlier run, held against what is expected now."""
    now = {"why": expected.get("why") or "", "want": expected["want"], "first": expected.get("first")}
    return Outcome(**known | now | {"warned": expected.get("severity") == "warning"})


def in_words(outcomes: list[Outcome], seed: int) -> str:
    faults, sound = [o for o in outcomes if o.want], [o for o in outcomes if not o.want]
    accused = [o for o in outcomes if o.errors]
    right = sum(o.right for o in faults)
    precise = sum(o.right for o in faults if o.errors)
    seconds = [o.seconds for o in outcomes]
    precision = f"{precise / len(accused):.0%}" if accused else "–"
    return (
        f"{right} of {len(faults)} faults are named by their first finding; {len(sound)} sound setups, "
        f"{sum(not o.right for o in sound)} false alarms; precision {precision}; seed {seed}, median "
        f"{statistics.median(seconds):.1f} and at most {max(seconds):.0f} CPU seconds a case."
    )


_KNOWN = (
    "# Public bugs",
    "Mistakes that somebody reported in public, each written anew as a small setup, and what the ladder says of it. "
    "The cases were known while the ladder was built, so this is what it has learnt, and no measure of what it will "
    "find in yours. The mended setup of most cases is among the sound ones. Written by `benchmarks/public_bugs.py`.",
)
_FIRST = (
    "# Reported bugs, blind",
    "Mistakes from public reports that nobody had looked at while the ladder was built, each written anew in "
    "`benchmarks/reported` with its mend, and all of them before the ladder was shown any. *At first* is what it said "
    "then, the honest figure; *now* is after the mends that this brought. Losses stand beside a case where they were "
    "measured; of the others it was not measured whether they hurt, so a miss may be no loss. Written by "
    "`benchmarks/public_bugs.py`.",
)


_SECOND = (
    "## The second set",
    "Made after the mends of the first, of kinds that neither it nor the cases known before held, by somebody who had "
    "not read the checks: how well the ladder does where nobody has taught it. 24 reports, their mends, and 14 sound "
    "setups from public code that look odd. What was called right was written down before the ladder ran. Ten of the "
    "faults, where it was in doubt whether they hurt, were trained beside their mends (`benchmarks/harm.py`, 150 "
    "updates, 115,200 tokens at most, seed 0): their losses, held out, in nats per token, stand beside, and the one "
    "that did not hurt counts as sound. *Now* was climbed anew for the 14 cases that a mend could reach; of the others "
    "it is what was said at first.",
)
_THIRD = (
    "## The third set",
    "Made after the mends of both, alike: 23 reports of kinds that neither set held, their mends where the plain setup "
    "is none, and 10 sound setups that look odd; the cases and what counts as right were committed before the ladder "
    "saw any. One kind, logits kept between -1 and 1, proved to be planted in the built-in recipe already, and was "
    "missed nevertheless. Losses, held out, in nats per token, stand beside where they were measured "
    "(`benchmarks/harm.py`, 150 updates, 115,200 tokens, or `--deep`, 160 updates, 122,880 tokens; seed 0); those that "
    "did not hurt count as sound. A mask that is capped hardly shows there, since validation sees the future, too. Of "
    "the mistakes of decoding the harm was not measured. *Now* was climbed anew for the cases that a mend could reach; "
    "of the others it is what was said at first.",
)
_FOURTH = (
    "## The fourth set",
    "Made after the mends of all three, alike: 16 reports of kinds that none of them held, and beside them mends and "
    "sound setups that look odd; the cases and what counts as right were committed before the ladder saw any. Six of "
    "the nine reports that no error named were trained beside their mends (`benchmarks/harm.py`, 120 updates, 92,160 "
    "tokens, or `--deep`, 160 updates, 122,880 tokens; seed 0): their losses, held out, in nats per token, stand "
    "beside; five did not hurt by 2 % and count as sound. Of the others the harm was not measured, so a miss may be "
    "no loss; nor was that of those that were named, which flatters the share: of all 16 reports 7 were named. Of the "
    "mends and the odd setups those that were climbed are counted; one of them, a cosine that begins again with each "
    "epoch, got a warning. *Now* was climbed anew for the two cases that a mend could reach; of the others it is what "
    "was said at first. The exchange alone was tried on [six of the faults](deep.md#reports-that-it-was-not-built-with"
    ").",
)
_FIFTH = (
    "## The fifth set",
    "Made after the mends of all four, by how people complain: the loss is negative, the text garbage though the loss "
    "is low, the rate does nothing. 14 reports from sources that no set had used, their mends where the plain setup "
    "is none, and 8 sound setups of kinds that are in no other; the cases and what counts as right were committed "
    "before the ladder saw any. Each fault was trained beside its mend (`benchmarks/harm.py`, 150 updates, 115,200 "
    "tokens, seed 0): their losses, held out, in nats per token, stand beside, and the one that did not hurt by 2 % "
    "counts as sound. Then what a user would do: the ladder, and `--deep` where it finds no error: by either 6 of the "
    "13 were named at first, and by warnings three more; of the 17 sound setups the ladder accused 1, and the "
    "exchange 2 of the 14 that it was tried on ([what it said](deep.md#the-fifth-set)). *Now* was climbed anew for "
    "the cases that a mend could reach; of the others it is what was said at first.",
)
_SIXTH = (
    "## The sixth set",
    "Made after the mends of all five, by how people complain. 15 reports from sources that no set had used, their "
    "mends where the plain setup is none, and 9 sound setups of kinds that are in no other, but for the "
    "sharpness-aware step, which the third set has, too; the cases and what counts as right were "
    "committed before the ladder saw any. Each fault was trained beside its mend (`benchmarks/harm.py`, 150 updates, "
    "115,200 tokens, seed 0): their losses, held out, in nats per token, stand beside, and the one that "
    "did not hurt by 2 % counts as sound. Then what a user would do: the ladder, and `--deep` where it finds no error: "
    "by either 9 of the 14 were named at first, and by warnings three more; of the 22 sound setups the ladder accused "
    "none, and the exchange none of the 10 that it was tried on ([what it said](deep.md#the-sixth-set)). The loss that "
    "is taken in chunks was shown a second time: as it was first written anew it took batches of one size alone, and "
    "raised. *Now* was climbed anew for the cases that a mend could reach; of the others it is what was said at first.",
)
_SEVENTH = (
    "## The seventh set",
    "Made after the mends of all six, mostly by how people complain; some searches named a part, such as the cell of a "
    "recurrent network. 12 reports from sources that no set had used, their mends where the plain setup is none, and "
    "6 sound setups of kinds that are in no other; the cases and what counts as right were committed before the ladder "
    "saw any. Each fault was trained beside its mend (`benchmarks/harm.py`, 150 updates, 115,200 tokens, seed 0), this "
    "time while the ladder ran: their losses, held out, in nats per token, stand beside, and the three that did not "
    "hurt by 2 % count as sound, by that rule, known beforehand. It moves the figures: of all 12 reports 9 were named. "
    "One of the three is accused, and truly: the gate of a mixture of experts never learns, which costs 1.4 % here. "
    "That and the 2.7 % of the dropout are of one seed each, and near the limit. Then what a user would do: the "
    "ladder, and `--deep` where it finds no error and the fault hurts, which was one fault, and the exchange tells "
    "nothing of it: by either 8 of the 9 were named at first. *Now* was climbed anew for two of the three cases with "
    "dropout, which alone the mend could reach; of the others it is what was said at first. CPU seconds are of a busy "
    "machine.",
)
_EIGHTH = (
    "## The eighth set",
    "Made after the mends of all seven, by how people complain: with a scheduler nothing is learnt, clipping does not "
    "work, the model says one word again and again. 12 reports from sources that no set had used, four of them from "
    "blogs, a forum and a tracker outside of GitHub, four from repositories of a few people; their mends where the "
    "plain setup is none, and 10 sound setups of kinds that are in no other. Each fault was trained beside its mend "
    "(`benchmarks/harm.py`, 150 updates, 115,200 tokens, seed 0) before the ladder saw any, and the cases, their "
    "losses and what counts as right were committed then: losses, held out, in nats per token, stand beside, and the "
    "two that did not hurt by 2 % count as sound, by that rule, known beforehand: of all 12 reports 5 were named. One "
    "was given other numbers first, as it cost 1.4 %: the limit of gradients, with SGD at 0.1 and momentum instead of "
    "0.5 without. Of the texts that are shuffled by kind 150 updates reach one kind alone, and so do the 400 batches "
    "that the ladder reads. The gradients that are clipped too early are near a kind of the first set, which was "
    "missed, too; the mend names both. Then what a user would do: `--deep` where the list finds no error, on four of "
    "five: by either 7 of the 10 were named at first ([what it said](deep.md#the-eighth-set)). *Now* was climbed anew "
    "for the case that the mend could reach, and its own mend; of the others it is what was said at first. CPU seconds "
    "are of a busy machine.",
)
_NINTH = (
    "## The ninth set",
    "Made after the mends of all eight, by how people complain: the loss is low and the text is nonsense, training "
    "needs an absurdly small rate, what the model sees is `hhell`. 12 reports from sources that no set had used, two "
    "of them from courses and six from repositories of a few people; of blogs and forums the search brought none "
    "that tells how its mistake works. Their mends where the plain setup is none, and 10 sound setups of kinds that "
    "are in no other. Each fault was trained beside its mend (`benchmarks/harm.py`, 150 updates, 115,200 tokens or, "
    "of the pieces of 24 characters, 57,600, seed 0) before the ladder saw any, and the cases, their losses and what "
    "counts as right were committed then: losses, held out, in nats per token, stand beside, and the two that did "
    "not hurt by 2 % count as sound, by that rule, known beforehand: of all 12 reports 7 were named. One of the two "
    "is accused, and truly: the output layer of attention never gets a gradient. So is the odd setup whose author "
    "froze a random embedding: what is said of it is true, and meant. The other two that were accused were so "
    "falsely, and are no longer. One fault was given other numbers first, as it cost 1.2 %: texts in pieces of 24 "
    "characters instead of 48. In pieces that short 25 % of validation's windows of 16 characters stand in training, "
    "as many as repeat within training, and the fault and its mend were both called an overlap; now the fault has "
    "its name, and of the mend nothing is said. The mixture's mend tells logarithms of probabilities, and its "
    "validation got logits that are none. "
    "The cell that is always given its first state is called `input-blind`, which is true, but was not among the "
    "codes written down. What fills up the last batch of validation is a miss, for which `--deep` was not tried: it "
    "exchanges no validation. *Now* was climbed anew for the two false alarms and the fault beside the first; of the "
    "others it is what was said at first. CPU seconds are of a busy machine.",
)
_TENTH = (
    "## The tenth set",
    "Made after the mends of all nine, of where small language models are trained today: llm.c, ex_nanoGPT, "
    "mlx-tune, lectures, axolotl, levanter, Flax, llama-cookbook. 16 reports from sources that no set had used, "
    "eleven of them issues or pull requests and five commits; their mends where the plain setup is none, and 10 "
    "sound setups that look odd, of modded-nanogpt, torchtune, llm.c and others, six of them once mended as "
    "mistakes. Each fault was trained beside its mend (`benchmarks/harm.py`, 150 updates, seed 0; of windows "
    "these are 115,200 tokens) before the ladder saw any, and the cases, their losses and what counts as right "
    "were committed then: losses, held out, in nats per token, stand beside, and the four that did not hurt by 2 "
    "% count as sound, by that rule, known beforehand: of all 16 reports 6 were named. One of the four is "
    "accused, and truly: its warmup is as long as its run, which costs nothing in a run this short. The decay "
    "that forgets the warmup is named by a warning, where an error was written down. Of the marker that is never "
    "found the ladder says `subject-error`, that every training mask is 0 throughout, which is true, but was not "
    "among the codes written down. Scores half as large as meant are made so by others on purpose, and no check "
    "tells them. Of the talk whose last turn alone is trained nothing but its validation shows that the others "
    "were meant to be, as the ladder says now. It brought a false name, as did its mend: phrases were looked up "
    "that had been put together over what does not count. `--deep` was tried on these two, and says nothing of "
    "either (1.914 with such scores, 1.816 all plain; 2.281 and 2.447 of the talk; 160 updates). *Now* was "
    "climbed anew for the three faults that the mends reach, "
    "and two of their mends; of the others it is what was said at first. CPU seconds are of a busy machine.",
)
_ELEVENTH = (
    "## The eleventh set",
    "Made after the mends of all ten, again of where small language models are trained: llama-from-scratch, Cerebras's "
    "and Modalities' models, Miles, symbolicgpt, CodeGeeX, tokenizers, parameter-golf, mesh-transformer-jax, nnsight, "
    "and the card of a model. 17 reports from sources that no set had used, in the order found, without those of a "
    "kind that another set has, of speed or crashes, and of several processes; their mends, and sound setups that "
    "look odd. Each fault was trained beside its mend (`benchmarks/harm.py`, 100 updates, of windows 76,800 tokens, "
    "the cosine 150; seed 0) before the ladder saw any, and the cases, their losses and what counts as right were "
    "committed then: losses, held out, in nats per token, stand beside, and the three that did not hurt by 2 % count "
    "as sound, by that rule, known beforehand: of all 17 reports 6 were named. The norm of the row costs less than "
    "that after 100 updates, and more after 150; it sees what it should tell. What fills rows costs 1.1 %, and makes "
    "the loss that is told 15 % too good. One of the three that do not hurt gets a warning, and truly: the norms that "
    "are never called cost 1.6 %. Two figures that are no perplexity get a warning, where an error was written down. "
    "The weights that are drawn anew were seen to memorise nothing, and not why. Of the feed-forward layer inside of "
    "attention's branch nothing shows that it was meant to stand beside it. The end that is spelled out gets a warning "
    "now, that no filled row ends with a text, by a mend made for others. `--deep` was not tried. "
    "Sound are eight mends beside them, nine odd setups, and the three. "
    "*Now* was climbed anew for the four faults that the mends reach; of the others it is what was "
    "said at first. CPU seconds are of a busy machine.",
)
_BLIND = {
    "reported": _FIRST,
    "second": _SECOND,
    "third": _THIRD,
    "fourth": _FOURTH,
    "fifth": _FIFTH,
    "sixth": _SIXTH,
    "seventh": _SEVENTH,
    "eighth": _EIGHTH,
    "ninth": _NINTH,
    "tenth": _TENTH,
    "eleventh": _ELEVENTH,
}


def page(outcomes: list[Outcome], seed: int, folder: str) -> str:
    """The page, or a folder's part of it: figures, the faults, and the sound setups that were accused."""
    blind = any(o.first is not None for o in outcomes)
    title, words = _BLIND.get(folder, _FIRST) if blind else _KNOWN
    lines = [
        title,
        "",
        words,
        "",
        *([_at_first(outcomes), ""] if blind else []),
        in_words(outcomes, seed),
        "",
    ]
    head = ["case", "reported", "wanted", *(["at first"] if blind else []), "now" if blind else "found"]
    head += ["right", "CPU s"]
    lines += [f"| {' | '.join(head)} |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += [_row(o) for o in outcomes if o.want]
    wrong = [f"- {o.why or o.case}: {_told(o)}" for o in outcomes if not o.want and not o.right]
    below = title.split()[0] + "#"
    return "\n".join([*lines, "", f"{below} False alarms", "", *(wrong or ["None."]), ""])


def put(docs: Path, text: str, name: str) -> None:
    """Write a page, or the part of it that is marked with a name."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    old = docs.read_text(encoding="utf-8") if docs.is_file() else ""
    if begin in old and end in old:
        text = old[: old.index(begin)] + begin + text + old[old.index(end) :]
    docs.write_text(text, encoding="utf-8")


def _row(outcome: Outcome) -> str:
    cells = [
        (outcome.why or outcome.case).replace("|", "/"),
        " ".join(f"[{i}]({url})" for i, url in enumerate(outcome.sources, start=1)),
        ", ".join(f"`{code}`" for code in outcome.want) + (" (warning)" if outcome.warned else ""),
        *([] if outcome.first is None else [_codes(outcome.first[:1])]),
        _told(outcome),
        "yes" if outcome.right else "**no**",
        f"{outcome.seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _at_first(outcomes: list[Outcome]) -> str:
    faults, sound = [o for o in outcomes if o.want], [o for o in outcomes if not o.want]
    named = sum(bool({*(o.first or [])[:1]} & {*o.want}) for o in faults)
    silent = sum(not o.first for o in faults)
    return (
        f"At first: {named} of {len(faults)} faults named by the first error, {silent} without any error, "
        f"{len(faults) - named - silent} called something else; {sum(bool(o.first) for o in sound)} of {len(sound)} "
        "sound setups accused."
    )


def _codes(codes: list[str]) -> str:
    return ", ".join(f"`{code}`" for code in codes) or "nothing"


def _told(outcome: Outcome) -> str:
    warnings = [f"`{code}` (warning)" for code in dict.fromkeys(outcome.warnings) if code in outcome.want]
    return ", ".join([f"`{code}`" for code in outcome.errors[:1]] + warnings) or "nothing"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="", help="Cases whose name holds this.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything drawn.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all outcomes here."
)
@click.option(
    "--take",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the outcomes that this file of --json holds instead of climbing; of several the last counts.",
)
@click.option("--docs", type=click.Path(dir_okay=False, path_type=Path), help="Write this page.")
def main(folder, only, seed, path, take, docs):
    """Examine the cases of FOLDER."""
    manifest = folder / "expected.json"
    if not manifest.is_file():
        raise click.UsageError(f"{folder} holds no expected.json")
    cases = {name: given for name, given in json.loads(manifest.read_text()).items() if only in name}
    if not cases:
        raise click.UsageError(f"no case of {manifest} holds {only!r}")
    sys.path[:0] = [str(folder), str(folder.parent)]  # a second set builds on what the first is made of
    modules: dict[Path, ModuleType] = {}
    outcomes = []
    taken = {one["case"]: one for file in take for one in json.loads(file.read_text())}
    for name, given in cases.items():
        known = taken.get(name)
        outcome = recalled(known, given) if known else examine(folder, name, given, modules, seed)
        outcomes.append(outcome)
        mark = "ok  " if outcome.right else "MISS" if outcome.want else "FALSE ALARM"
        click.echo(f"{mark} {name}: {', '.join(outcome.errors) or 'no error'}, {outcome.seconds:.1f} s")
    click.echo(in_words(outcomes, seed))
    if path:
        path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    if docs:
        put(docs, page(outcomes, seed, folder.name), folder.name)


if __name__ == "__main__":
    main()
