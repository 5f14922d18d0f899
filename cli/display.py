"""What `mlxstories train` shows: before, while and after a model trains."""

from __future__ import annotations

import contextlib

import click

_HEADINGS = {"bits_per_character": "bits/char"}


class Display:
    """Live progress in a terminal, a plain line for every record elsewhere."""

    def __init__(self, quiet: bool = False):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.live = self.run = None
        self.latest = {}

    def begin(self, trainer) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from mlxstories.model import parameter_count

        self.run = trainer.run.path
        dataset, phase, config = trainer.dataset, trainer.phase, trainer.config
        rows = phase.accumulation * config.batch_size
        shared = f" shared among {trainer.group.size} processes" if trainer.group.size > 1 else ""
        self.console.print(
            f"{trainer.run.path}: {phase.name}, {parameter_count(trainer.model):,} parameters, "
            f"{dataset.train.targets:,} tokens in {len(dataset.train):,} stories, "
            f"{trainer.total_steps:,} updates of {rows} rows x {trainer.model.config.context} tokens{shared}"
        )
        if self.console.is_terminal and not self.console.quiet:
            columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
            self.live = Progress(*columns, TextColumn("{task.description}"), console=self.console)
            self.live.start()
            self.task = self.live.add_task("", total=trainer.total_steps, completed=trainer.progress.step)

    def __call__(self, record: dict) -> None:
        if record["split"] == "val":
            text = (
                f"step {record['step']:>6}  epoch {record['epoch']:.2f}  "
                f"validation loss {record['loss']:.4f}{_bits(record)}  "
                f"accuracy {record['accuracy']:.2%}"
            )
        else:
            text = (
                f"loss {record['loss']:.3f}  accuracy {record['accuracy']:.1%}  "
                f"lr {record['learning_rate']:.2e}  grad {record['grad_norm']:.2f}  "
                f"{record['tokens_per_second']:,.0f} tokens/s"
            )
        if record["split"] == "val":
            self._print(text)
        elif self.live is None:
            self._print(f"step {record['step']:>6}  {text}")
        else:
            self.live.update(self.task, completed=record["step"], description=text)

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed, and a checkpoint is yet to be saved
            self.console.print(text, markup=False)

    def check(self, diagnosis) -> None:
        if diagnosis is not None:
            for finding in diagnosis.findings:
                self.finding(finding)
            verdict = "nothing wrong" if diagnosis.healthy else "see above; training goes on all the same"
            self.console.print(f"Checked data and model in {diagnosis.seconds:.1f} s: {verdict}.")

    def finding(self, finding) -> None:
        if finding.severity != "note":
            self._print(f"{finding.severity}: {finding.code}: {finding.message}. Fix: {finding.fix}.")

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

        out = Console(highlight=False, soft_wrap=True)
        out.print(_held_out(result))
        if result["floor"] is not None:
            line = f"The loss is {result['loss'] / result['floor'] - 1:+.1%} from the floor"
            if result["ceiling"] is not None:
                line += f"; the accuracy is {result['accuracy'] / result['ceiling']:.1%} of what is possible"
            out.print(line + ".")
        out.print(
            f"seed {result['seed']}, {result['trained_tokens']:,} tokens in {result['steps']:,} updates, "
            f"{result['parameters']:,} parameters, {result['seconds']:.1f} s"
        )
        for story in result["samples"]:
            out.print(f"\n  {story}", markup=False)
        out.print(
            f"\nThe run lies in {trainer.run.path}. Next:\n"
            f"  mlxstories sample {trainer.run.path}\n  mlxstories report {trainer.run.path} --open"
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


def _bits(record: dict) -> str:
    bits = record.get("bits_per_character")
    return "" if bits is None else f"  {bits:.3f} bits/char"
