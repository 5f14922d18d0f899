"""`mlxstories sample`."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Iterator

import click

from mlxstories.cli.conversation import converse
from mlxstories.cli.options import RUN, given_options, runs_option, which_option, whole_option
from mlxstories.cli.text_output import GrowingText, wrapped
from mlxstories.cli.types import Whole
from mlxstories.errors import StoriesError


@click.command("sample")
@click.argument("run", type=RUN, required=False)
@click.option("--prompt", "prompts", multiple=True, help="Beginning of a story; repeatable.")
@click.option(
    "--num",
    type=Whole(1, 100_000),
    help="Stories for each prompt.  [default: 3; at a terminal it asks for more]",
)
@click.option(
    "--max-tokens", type=Whole(), help="Longest continuation, in tokens.  [default: the model's context]"
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    help="How freely tokens are drawn; 0 takes the likeliest.",
)
@whole_option("--top-k", default=0, least=0, help="Keep the k likeliest tokens; 0 keeps all.")
@click.option(
    "--top-p",
    default=1.0,
    show_default=True,
    help="Keep the fewest tokens whose probabilities reach this sum.",
)
@click.option(
    "--min-p",
    default=0.0,
    show_default=True,
    help="Keep tokens of at least this share of the highest probability.",
)
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1: avoid repeated tokens.")
@whole_option(
    "--no-repeat-ngram", default=0, least=0, help="Never repeat this many tokens in a row; 0 allows it."
)
@click.option(
    "--seed",
    type=Whole(0, 2**32 - 1),
    help="Seed of the draws: the same one tells the same stories.  [default: another each time]",
)
@which_option
@click.option("--stream", "streaming", is_flag=True, help="Show each story while it is told.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the stories and statistics.")
@runs_option
def command(run, prompts, num, max_tokens, seed, which, streaming, as_json, runs, **sampling):
    """Let a trained model tell stories.

    RUN is a run's name or directory; without it, the newest run. At a terminal, without --prompt and --num, you type
    how a story begins and it goes on. Stories go to standard output, seed and statistics to standard error.
    """
    from mlxstories.generation.decoding import generate
    from mlxstories.generation.sampling import SamplingConfig
    from mlxstories.generation.variety import text_statistics
    from mlxstories.runs.checkpoints import load_model
    from mlxstories.runs.directory import find_run

    if streaming and as_json:
        raise StoriesError("--stream and --json exclude each other; take one of them")
    _refuse_without_effect(sampling["temperature"])
    sampling = SamplingConfig(**sampling)
    found = find_run(run, runs)
    model, tokenizer, _ = load_model(found, which)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    options = {"max_tokens": _longest(model, max_tokens), "sampling": sampling, "seed": seed}
    asked = prompts or num or streaming or as_json
    if not asked and sys.stdin.isatty() and sys.stdout.isatty():
        click.secho(f"The model of {found.path}", bold=True)
        converse(model, tokenizer, **options)
        return
    options["end"] = tokenizer.end
    beginnings = [prompt for prompt in prompts or ("",) for _ in range(num or 3)]
    starts = _encoded(model, tokenizer, beginnings)
    if streaming:
        told = [
            _show(model, tokenizer, beginning, start, row, options)
            for row, (beginning, start) in enumerate(zip(beginnings, starts, strict=True))
        ]
    else:
        stories = generate(model, starts, **options)
        told = [[*start, *story.tokens] for start, story in zip(starts, stories, strict=True)]
    statistics = dataclasses.asdict(text_statistics(told))
    if as_json:
        texts = [
            {"text": tokenizer.decode(tokens), "tokens": tokens, "reason": story.reason}
            for tokens, story in zip(told, stories, strict=True)
        ]
        result = {"run": str(found.path), "seed": seed, "stories": texts, **statistics}
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    if not streaming:
        _print(_in_words(tokenizer, beginnings, starts, stories))
    _say(
        f"{f'seed {seed}, ' if sampling.temperature else ''}told by {found.path}; "
        "distinct 1-, 2-, 3-grams {distinct_1:.2f} {distinct_2:.2f} {distinct_3:.2f}, "
        "repeated 4-grams {repeated_4:.1%}".format(**statistics)
    )


def _refuse_without_effect(temperature: float) -> None:
    """Raises click.UsageError where the likeliest token is taken, and an option was given that leaves it as it is."""
    given = given_options()
    for name in ("top_k", "top_p", "min_p", "seed"):
        if temperature == 0 and name in given:
            raise click.UsageError(
                f"{given[name]} has no effect at --temperature 0, which takes the likeliest token: leave one of the "
                "two out."
            )


def _print(stories: Iterator[str]) -> None:
    click.echo("\n\n".join(map(wrapped, stories)))
    if sys.stdout.isatty():  # where what is said beside them stands below
        click.echo()


def _say(text: str) -> None:
    """A word on the stories, beside them."""
    click.echo(wrapped(text, stream=sys.stderr), err=True)


def _longest(model, max_tokens: int | None) -> int:
    """Tokens that a story may have; a note says that it has at most those of the context."""
    context = model.config.context
    if max_tokens is not None and max_tokens > context:
        _say(f"note: the model's context is {context} tokens, where a story ends at the latest")
    return max_tokens or context


def _encoded(model, tokenizer, beginnings: list[str]) -> list[list[int]]:
    """The tokens of each beginning; notes on words never seen, and on what is too long, go to standard error."""
    from mlxstories.generation.story_text import encode

    encoded = {beginning: encode(tokenizer, beginning, model.config.context) for beginning in beginnings}
    for note in dict.fromkeys(note for _, notes in encoded.values() for note in notes):
        _say(f"note: {note}")
    return [encoded[beginning][0] for beginning in beginnings]


def _in_words(tokenizer, beginnings, starts, stories) -> Iterator[str]:
    from mlxstories.generation.story_text import told

    for beginning, start, story in zip(beginnings, starts, stories, strict=True):
        yield told(tokenizer, beginning, start, story.tokens, finished=story.finished)


def _show(model, tokenizer, beginning, start, row, options) -> list[int]:
    """Print a story as it grows, its beginning as it was given; returns its tokens."""
    from mlxstories.generation.decoding import stream

    tokens = list(start)
    before = tokenizer.decode(tokens)
    screen = GrowingText()
    screen.add(beginning)
    for token in stream(model, start, row=row, **options):
        tokens.append(token)
        text = tokenizer.decode(tokens)
        if text.startswith(before) and not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a cut character
            screen.add(text[len(before) :])
            before = text
    screen.end()
    return tokens
