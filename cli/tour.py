"""`mlxstories tour`."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from mlxstories.cli.text_output import continued, wrapped
from mlxstories.cli.types import Place
from mlxstories.errors import StoriesError


@dataclass(frozen=True)
class Stop:
    """A command of the tour: what it is about, its arguments, and the exit code that it ends with."""

    title: str
    text: str
    command: str
    code: int = 0


STOPS = (
    Stop(
        "The stories",
        "The built-in stories are told by a small random program, so how well any model can predict the next word is "
        "known exactly: the floor of the loss and the ceiling of the accuracy. Below this story stand its floor, in "
        "nats a token (minus the natural logarithm of the right word's probability), and how many of its words are "
        "free choices, how many recall something from earlier, and how many are fixed.",
        "data show --stories 1 --seed 7 --floor",
    ),
    Stop(
        "Break and debug",
        "Now a mistake is planted in the recipe: attention gets no causal mask. Trained like this, a model passes "
        "99 % validation accuracy and tells gibberish. The ladder needs seconds to name the cause. Behind a cross "
        "stands what is true of a sound recipe and not of this one; the error and its fix come last.",
        "debug --break no-causal-mask",
        code=1,
    ),
    Stop(
        "Fix",
        "With the mask back in its place, the same ladder is climbed to the top. ln V is the loss of guessing blindly "
        "among V words; unigram and bigram are the losses of counting words and pairs of words, which a transformer "
        "has to beat in time. Your own training code can be examined like this too: mlxstories debug train.py",
        "debug",
    ),
    Stop(
        "Train",
        "A small model on 1,000 stories with phase 3, whose optimiser is Muon. Look at the table in the end: each "
        "kind of word has its own floor. Fixed words come first, recalling a name from far back comes last. Without "
        "options, train takes the recipe of the record on 10,000 stories, which ends above 99 % of the ceiling "
        "(docs/speedrun.md).",
        "train --phase 3 --size debug --stories 1000 --validation 100 --epochs 4 --name first",
    ),
    Stop(
        "Compare",
        "Is that recipe better than the others, or lucky? All arms get the same stories, weights to start from and "
        "batches; differences are paired by seed, and a verdict says what two seeds can prove. Behind ± stands a 95 % "
        "interval; what the columns mean is on the page docs/compare.md.",
        "compare --sizes debug --stories 300 --validation 100 --epochs 1 --seeds 2",
    ),
    Stop(
        "Sample",
        "What the model tells. The same seed tells the same stories.",
        'sample first --num 2 --prompt "Once upon a time" --seed 7',
    ),
)


@click.command("tour")
@click.option("--yes", is_flag=True, help="Go on without asking, as outside of a terminal.")
@click.option(
    "--keep",
    type=Place(file_okay=False),
    metavar="DIR",
    help="Keep what the tour makes here.  [default: a temporary folder, removed]",
)
def command(yes, keep):
    """Five minutes from a broken recipe to a model that tells stories.

    Runs the commands one after the other, each with a few words before it. Works offline, and leaves nothing
    behind unless --keep says where.
    """
    from mlxstories.storage.files import writing

    ask = sys.stdin.isatty() and not yes
    if keep and (keep / "runs" / "first").exists():
        raise click.BadParameter(
            f"{keep} holds a tour's run already: give another folder", param_hint="--keep"
        )
    with contextlib.ExitStack() as stack:
        with writing(keep or "the temporary directory"):
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
            folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="mlxstories-tour-"))
        for number, stop in enumerate(STOPS, 1):
            show(number, stop)
            if ask and click.prompt("Enter runs it, q leaves", default="", show_default=False) == "q":
                break
            run(stop, folder)
        else:
            end = "That was the tour. `mlxstories -h` lists the commands; each explains itself with -h."
            click.echo("\n" + wrapped(end))
    click.echo(f"The runs lie in {keep}/runs." if keep else "The tour's folder is removed again.")


def show(number: int, stop: Stop) -> None:
    """The stop's title, text and command."""
    click.secho(f"\n{number} of {len(STOPS)}: {stop.title}\n", bold=True)
    click.echo(wrapped(stop.text))
    click.secho(f"\n{continued(f'$ mlxstories {stop.command}')}\n", bold=True)


def run(stop: Stop, folder: str | Path) -> None:
    """Run the stop's command in ``folder``, in this terminal."""
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "mlxstories.cli", *shlex.split(stop.command)]
    code = subprocess.run(arguments, cwd=folder).returncode
    if code != stop.code:
        raise StoriesError(
            f"the tour stops: `mlxstories {stop.command}` ended with exit code {code}, see above for why."
        )
