"""`mlxstories sample` at a terminal: type a beginning, and the model tells on."""

from __future__ import annotations

import codecs
import dataclasses
import io
import math
import sys
from pathlib import Path

import click

from mlxstories.cli.text_output import wrapped
from mlxstories.errors import StoriesError, did_you_mean

HELP = (
    "Type how a story begins and press Enter; Enter alone lets the model begin. Other words: again (the same "
    "beginning, another story), temperature 0.6, save FILE, help, quit."
)
WORDS = ("again", "temperature", "save", "help", "quit")


class Conversation:
    """What was typed, and the story told last.

    Args:
        tell: (beginning, temperature, seed) to the story and notes on the beginning.
        seed: of the first story; each further one has the next.
    """

    def __init__(self, tell, temperature: float, seed: int):
        self._tell, self._temperature, self._seed = tell, temperature, seed
        self._beginning, self._story = "", ""

    def run(self) -> None:
        """Until the end of input, or quit; what is typed is UTF-8 where the locale knows no more than ASCII."""
        encoding = codecs.lookup(sys.stdin.encoding).name
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8" if encoding == "ascii" else encoding, errors="replace")
        click.echo(wrapped(HELP) + "\n")
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                click.echo()
                return
            if line.lower() in ("quit", "exit", "q"):
                return
            self.answer(line)

    def answer(self, line: str) -> None:
        """Do what a line asks for."""
        word, _, rest = line.partition(" ")
        try:
            if line.lower() == "help":
                click.echo(wrapped(HELP))
            elif line in ("save", "temperature"):
                click.echo("save FILE, such as: save story.txt" if line == "save" else self._now())
            elif word == "temperature" and (temperature := _number(rest)) is not None:
                self._temperature = temperature
                click.echo(self._now())
            elif word == "save" and rest:
                self._save(Path(rest).expanduser())
            else:
                self._beginning = self._beginning if line == "again" else line
                if word.islower() and line != "again" and (likely := did_you_mean(word, WORDS)):
                    click.echo(f"note: taken for the beginning of a story.{likely}")
                self._next()
        except StoriesError as error:
            click.echo(f"error: {error}", err=True)

    def _now(self) -> str:
        return f"temperature {self._temperature:g}: higher is freer, 0 takes the likeliest word"

    def _next(self) -> None:
        self._story, notes = self._tell(self._beginning, self._temperature, self._seed)
        for note in notes:
            click.echo(wrapped(f"note: {note}"))
        click.echo(
            f"\n{wrapped(self._story, '  ')}\n\n(seed {self._seed}, temperature {self._temperature:g})\n"
        )
        self._seed += 1

    def _save(self, path: Path) -> None:
        from mlxstories.storage.files import writing

        if not self._story:
            click.echo("nothing is told yet")
            return
        with writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(self._story + "\n\n")
        click.echo(f"added to {path}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def converse(model, tokenizer, *, max_tokens: int, sampling, seed: int) -> None:
    """Talk at the terminal with a model."""
    from mlxstories.generation.decoding import generate
    from mlxstories.generation.story_text import encode, told

    def tell(beginning: str, temperature: float, seed: int) -> tuple[str, list[str]]:
        tokens, notes = encode(tokenizer, beginning, model.config.context)
        (story,) = generate(
            model,
            [tokens],
            max_tokens=max_tokens,
            sampling=dataclasses.replace(sampling, temperature=temperature),
            seed=seed,
            end=tokenizer.end,
        )
        text = told(tokenizer, beginning, tokens, story.tokens, finished=story.finished)
        return text, notes

    Conversation(tell, sampling.temperature, seed).run()
