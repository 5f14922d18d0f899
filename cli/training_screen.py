"""What `mlxstories train` shows: before, while and after a model trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxstories.cli.text_output import styled, wrapped
from mlxstories.cli.time_left import TimeLeft
from mlxstories.durations import between, duration

if TYPE_CHECKING:
    from rich.progress import Progress

_SAME = 1e-4  # by which a loss that is measured again may differ
_HEADINGS = {"bits_per_character": "bits/char"}


class TrainingScreen:
    """Live progress in a terminal, a plain line for every record elsewhere."""

    def __init__(self, quiet: bool = False):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.console.soft_wrap = not self.console.is_terminal  # a file or a pipe has no width
        self.live: Progress | None = None
        self.run: Path | None = None
        self.total, self.at_most, self.pace = 0, "", TimeLeft(1)

    def begin(self, trainer) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        from mlxstories.model import parameter_count

        self.run = trainer.run.path
        dataset, phase, config = trainer.dataset, trainer.phase, trainer.config
        rows = phase.accumulation * config.batch_size
        count = len(dataset.train)
        shared = f" shared among {trainer.group.size} processes" if trainer.group.size > 1 else ""
        self.console.print(
            f"{trainer.run.path}: {phase.name}, {parameter_count(trainer.model):,} parameters, "
            f"{dataset.train.targets:,} tokens in {count:,} stor{'ies' if count != 1 else 'y'}, "
            f"{trainer.total_steps:,} updates of {rows} row{'s' if rows > 1 else ''} x "
            f"{trainer.model.config.context} tokens{shared}"
        )
        if trainer.progress.step == 0 and trainer.group.leads:
            self._before(trainer)
        self.total, self.pace = trainer.total_steps, TimeLeft(2 * trainer.evaluate_every)
        self.at_most = "up to " if config.stop_after and trainer.progress.cooldown is None else ""
        if self.console.is_terminal and not self.console.quiet:
            columns = (BarColumn(bar_width=20), TextColumn("{task.completed}/{task.total}"))
            self.console.print()
            self.live = Progress(*columns, TextColumn("{task.description}"), console=self.console)
            self.live.start()
            self.task = self.live.add_task("", total=trainer.total_steps, completed=trainer.progress.step)

    def _before(self, trainer) -> None:
        """Before any time is spent: what will hardly work, how long it will take, and what is written where."""
        from mlxstories.model import parameter_count
        from mlxstories.training.advice import advice
        from mlxstories.training.estimate import WORTH_IT, estimate

        parameters = parameter_count(trainer.model)
        for sentence in advice(trainer.dataset, trainer.model.config, parameters, trainer.phase):
            self.say(f"{sentence}.")
        if trainer.total_steps < WORTH_IT or trainer.group.size > 1:
            return
        found = estimate(trainer)
        early = ", or less where validation stops improving" if trainer.config.stop_after else ""
        self.say(
            f"About {between(found.shortest, found.longest)}{early}; {found.memory / 1e6:,.0f} MB of memory, "
            f"up to {found.disk / 1e6:,.0f} MB in {trainer.run.path}."
        )

    def __call__(self, record: dict) -> None:
        if record["split"] == "cooldown":
            self._cools_down(record)
        elif record["split"] == "val":
            self.say(
                f"step {record['step']:>5}  epoch {record['epoch']:.2f}  "
                f"validation loss {record['loss']:.4f}{_bits(record)}  "
                f"accuracy {record['accuracy']:.1%}"
            )
        else:
            self._updated(record)

    def _updated(self, record: dict) -> None:
        loss = f"loss {record['loss']:.3f}"
        pace = f"{record['tokens_per_second']:,.0f} tokens/s{self._left(record['step'])}"
        if self.live is not None:
            self.live.update(self.task, completed=record["step"], description=f"{loss}  {pace}")
            return
        self.say(
            f"step {record['step']:>5}  {loss}  accuracy {record['accuracy']:.1%}  "
            f"lr {record['learning_rate']:.2e}  grad {record['grad_norm']:.2f}  {pace}"
        )

    def _cools_down(self, record: dict) -> None:
        best, updates = record["weights_of"], record["updates"]
        self.say(
            f"Validation has stopped improving: back to the weights of step {best}, the best, and cooling down from "
            f"there over {updates:,} update{'s' if updates > 1 else ''} (--stop-after)."
        )
        self.total, self.at_most = record["step"] + updates, ""
        if self.live is not None:
            self.live.update(self.task, total=self.total)

    def _left(self, step: int) -> str:
        seconds = self.pace.left(step, self.total)
        return "" if seconds is None or step == self.total else f"  {self.at_most}{duration(seconds)} left"

    def say(self, text: str) -> None:
        """Print a line."""
        with contextlib.suppress(OSError):  # the terminal was closed, and a checkpoint is yet to be saved
            self.console.print(styled(text))

    def check(self, diagnosis) -> None:
        if diagnosis is not None:
            for finding in diagnosis.findings:
                self.finding(finding)
            warned = any(finding.severity == "warning" for finding in diagnosis.findings)
            verdict = "no error, but see above" if warned else "nothing wrong"
            if not diagnosis.healthy:
                verdict = "see above; training goes on all the same"
            self.console.print(f"Checked data and model in {diagnosis.seconds:.1f} s: {verdict}.")

    def finding(self, finding) -> None:
        if finding.severity != "note":
            self.say(f"{finding.severity}: {finding.code}: {finding.message}. Fix: {finding.fix}.")

    def lost(self, reason: str) -> None:
        """One line: this may be called in a thread, just before the process ends."""
        advice = (
            f" Continue from the last checkpoint: mlxstories train --resume {self.run}" if self.run else ""
        )
        click.echo(f"Stopped: {reason}{advice}", err=True)

    def end(self) -> None:
        if self.live is not None:
            self.live.stop()

    def result(self, trainer, result: dict) -> None:
        """Loss and accuracy beside what is possible, three stories, and what to do next."""
        from rich.console import Console

        from mlxstories.generation.story_text import ended

        out = Console(highlight=False)
        out.soft_wrap = not out.is_terminal
        early = trainer.config.stop_after and result["steps"] < trainer.planned_steps
        if early:
            out.print(_ended_early(trainer, result))
        out.print(_held_out(result))
        for line in _judged(result, trainer.progress.best_loss, early):
            out.print(styled(line))
        out.print(
            f"seed {result['seed']}, {result['trained_tokens']:,} tokens in {result['steps']:,} updates, "
            f"{result['parameters']:,} parameters, {result['seconds']:.1f} s"
        )
        for story in result["samples"]:
            click.echo("\n" + wrapped(ended(story).strip(), "  "))
        out.print(
            f"\nThe run lies in {trainer.run.path}. Next:\n"
            f"  mlxstories sample {trainer.run.path}\n  mlxstories report {trainer.run.path} --open"
        )


def _ended_early(trainer, result: dict) -> str:
    cooled, patience = result["cooldown"], trainer.config.stop_after
    why = (
        f"cooled down from step {cooled['weights_of']}"
        if cooled
        else f"for the last {patience} validations did not improve on the best"
    )
    return f"Ended after {result['steps']:,} of {trainer.planned_steps:,} updates, {why} (--stop-after)."


def _judged(result: dict, lowest: float | None, early: bool) -> Iterator[str]:
    """What the figures say beside the floor or what counts reach, and whose they are; ``lowest`` is the lowest
    validation loss of all, that before the first update included."""
    if result["floor"] is not None:
        above = result["loss"] / result["floor"] - 1
        line = f"The loss is {abs(above):.1%} {'above' if above >= 0 else 'below'} the floor"
        if result["ceiling"] is not None:
            line += f"; the accuracy is {result['accuracy'] / result['ceiling']:.1%} of what is possible"
        yield line + ". The floor is what a perfect model reaches (docs/floor.md)."
    if result["baselines"]:
        yield _baselines(result)
    if lowest is not None and result["loss"] > lowest * (1 + _SAME):
        yield (
            f"warning: no update has made it better than it was before the first ({lowest:.4f}): take a smaller "
            "--lr, or look for the cause with mlxstories debug."
        )
    elif result["baselines"] and result["loss"] >= result["baselines"]["pairs"]:
        over = early or result["best_step"] < result["steps"]  # and going on would not have helped
        needed = "more text" if over else "more --epochs, or more text"
        yield f"The model is not better than those pairs: it needs {needed}."
    if result["best_step"] != result["steps"]:
        yield (
            f"These are the weights of step {result['best_step']}, the best on held-out stories; the last have "
            f"a loss of {result['last']['loss']:.4f} there."
        )


def _held_out(result: dict):
    """The table of held-out figures; columns of which nothing is known are left out."""
    from rich.table import Table

    columns = {
        "tokens": "{:,}",
        "loss": "{:.4f}",
        "floor": "{:.4f}",
        "bits_per_character": "{:.3f}",
        "accuracy": "{:.2%}",
        "ceiling": "{:.2%}",
    }
    shown = {name: form for name, form in columns.items() if result.get(name) is not None}
    table = Table("held-out stories", *(_HEADINGS.get(name, name) for name in shown))
    for kind, row in {"all": result, **result["by_kind"]}.items():
        table.add_row(
            kind, *("" if row.get(name) is None else form.format(row[name]) for name, form in shown.items())
        )
    return table


def _baselines(result: dict) -> str:
    """What counts of tokens reach on the same stories."""
    bits = result["bits_per_character"] / result["loss"]
    frequencies, pairs = (result["baselines"][name] for name in ("frequencies", "pairs"))
    return (
        f"Without any model, the frequencies of tokens reach a loss of {frequencies:.4f} ({frequencies * bits:.3f} "
        f"bits/char), and pairs of tokens {pairs:.4f} ({pairs * bits:.3f})."
    )


def _bits(record: dict) -> str:
    bits = record.get("bits_per_character")
    return "" if bits is None else f"  {bits:.3f} bits/char"
