"""The climb on the screen, and its verdict in words."""

from __future__ import annotations


class LadderScreen:
    """The climb on the screen: live in a terminal, one line a rung elsewhere."""

    def __init__(self, stream):
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=stream, highlight=False, emoji=False)
        self.marks = dict(zip(("passed", "failed", "skipped", "remarked"), _marks(stream), strict=True))
        self.rungs: list = []
        self.running = None
        self.listed = False  # whether every check was
        self.live = Live(console=self.console, refresh_per_second=8) if self.console.is_terminal else None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        if self.live:
            self.live.stop()

    def say(self, text: str = "") -> None:
        """Print a line; where a terminal breaks it, its parts keep the indent."""
        if not self.live:
            self.console.print(text, markup=False, soft_wrap=True)
            return
        from rich.padding import Padding

        from mlxstories.cli.text_output import styled

        line = text.lstrip(" ")
        self.console.print(Padding(styled(line), (0, 0, 0, len(text) - len(line))))

    def event(self, kind: str, value) -> None:
        if kind == "rung":
            self.running = value
            self.rungs.append(value)
        elif kind == "done":
            self.running = None
            if not self.live:
                self.say(self._line(value))
        if self.live:
            self.live.update(self._table())

    def _line(self, rung) -> str:
        return f"{self.marks[rung.status]} {rung.name:<8} {rung.seconds:5.1f} s  {_summary(rung)}"

    def _table(self):
        from rich.spinner import Spinner
        from rich.table import Table

        styles = {"passed": "green", "failed": "red", "skipped": "dim"}
        marks = {status: f"[{style}]{self.marks[status]}[/]" for status, style in styles.items()}
        table = Table.grid(padding=(0, 1))
        for rung in self.rungs:
            running = rung is self.running
            mark = Spinner("dots") if running else marks[rung.status]
            last = rung.checks[-1].name if running and rung.checks else ""
            summary = last if running else _summary(rung)
            seconds = "" if running else f"{rung.seconds:5.1f} s"
            table.add_row(mark, rung.name, seconds, summary.replace("[", r"\["))
        return table

    def checks(self, diagnosis) -> None:
        """Every check with its figure, those marked ``!`` that passed with a warning or a note; of a skipped one why,
        and the field of the Subject that unlocks it."""
        from mlxstories.ladder.registry import CHECKS

        self.listed = True
        for rung in diagnosis.rungs:
            self.say(f"\n{rung.name}")
            for line in rung.checks:
                needs = CHECKS[line.name].needs if line.name in CHECKS else ()
                missing = [field for field in needs if f"no {field}" in line.detail]
                hint = f"; Subject({'=, '.join(missing)}=) unlocks it" if missing else ""
                remarked = line.status == "passed" and line.codes
                mark = self.marks["remarked" if remarked else line.status]
                self.say(f"  {mark} {_told(line)}{hint}")

    def verdict(self, diagnosis, *, story: bool) -> None:
        from mlxstories.ladder.registry import RUNGS
        from mlxstories.ladder.verdict import OTHER_TASK, OUT_OF_TIME

        if story:
            self._beside_the_story(diagnosis)
        errors = [f for f in diagnosis.findings if f.severity == "error"]
        self.say()
        for finding in diagnosis.findings:
            self._finding(finding)
            self.say()
        if not errors:
            skipped = sum(c.status == "skipped" for r in diagnosis.rungs for c in r.checks)
            hint = "" if self.listed else "; -v lists them"
            rest = f" ({skipped} checks skipped{hint})" if skipped else ""
            failed = [rung.name for rung in diagnosis.rungs if rung.status == "failed"]
            whole = set(RUNGS) <= {rung.name for rung in diagnosis.rungs}
            verdict = "healthy" if whole else "no error on the rungs climbed"
            if failed:
                verdict = f"no error, but see {', '.join(failed)}"
            self.say(f"{diagnosis.subject}: {verdict}, in {diagnosis.seconds:.1f} s{rest}")
        else:
            ended = {OUT_OF_TIME: "time ran out", OTHER_TASK: "not examined"}
            first = ended.get(errors[0].evidence.get("ended"), errors[0].code)
            self.say(f"{diagnosis.subject}: {first}, in {diagnosis.seconds:.1f} s")

    def _finding(self, finding) -> None:
        from mlxstories.ladder.verdict import OTHER_TASK

        accepted = " (accepted)" if finding.evidence.get("accepted") else ""
        what = "not examined" if finding.evidence.get("ended") == OTHER_TASK else finding.severity
        self.say(f"{what}{accepted}: {finding.code}" + (f" at {finding.where}" if finding.where else ""))
        self.say(f"  {finding.message}")
        if finding.fix:
            self.say(f"  Fix: {finding.fix}")
        if consequences := finding.evidence.get("consequences"):
            self.say(f"  Found too, and perhaps only because of it: {', '.join(consequences)}")

    def _beside_the_story(self, diagnosis) -> None:
        from mlxstories.comparison import debugging_story

        data = {name: value for rung in diagnosis.rungs for name, value in rung.figures.items()}
        steps, there = debugging_story.MINIMAL
        here = next((p[2] for p in data.get("overfit", {}).get("points", ()) if p[0] == steps), None)
        lines = [] if here is None else [f"after {steps} steps: {here:.1%} ({there:.1%})"]
        for point in data.get("sweep", ()):
            if point["rate"]:
                near = (
                    a for rate, a in debugging_story.SWEEP.items() if abs(rate / point["rate"] - 1) < 0.05
                )
                known = next(near, None)
                beside = "" if known is None else f" ({known:.0%})"
                steps, rate = point["steps"], point["rate"]
                lines.append(f"after {steps} steps at a rate of {rate:.0e}: {point['accuracy']:.1%}{beside}")
        if lines:
            self.say(
                "\nAccuracy on the 4 stories that it was trained on; in brackets, that of the training without a "
                "causal mask that this project grew out of:"
            )
        for line in lines:
            self.say(f"  {line}")


def _summary(rung) -> str:
    failed = [check for check in rung.checks if check.status == "failed"]
    if failed:
        return "; ".join(map(_told, failed))
    if rung.status == "skipped":
        return rung.checks[0].detail if rung.checks else ""
    passed = sum(check.status == "passed" for check in rung.checks)
    skipped = sum(check.status == "skipped" for check in rung.checks)
    telling = [
        f"{_TELLING[c.name]}{c.detail}" for c in rung.checks if c.name in _TELLING and c.status == "passed"
    ]
    counts = f"{passed} checks" + (f", {skipped} skipped" if skipped else "")
    return "; ".join([counts, *telling])


def _told(line) -> str:
    """A check and its figure. Its name says what a sound subject does; where it failed, what it found comes first."""
    found = ", ".join(dict.fromkeys(line.codes))
    if line.status == "failed" and found:
        return f'{found}: fails "{line.name}"' + (f" ({line.detail})" if line.detail else "")
    name = f"{line.name}, but {found}" if line.status == "passed" and found else line.name
    return f"{name}: {line.detail}" if line.detail else name


def _marks(stream) -> str:
    """Signs for passed, failed, skipped and passed with a remark that the stream's encoding has."""
    marks = "✓✗–!"
    try:
        marks.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "+x-!"
    return marks


_TELLING = {  # the checks whose figures are shown, and what these are
    "first loss near ln V": "first loss ",
    "memorises a few stories": "memorised ",
    "better than word frequencies": "",
}
