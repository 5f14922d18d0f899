"""`mlxstories sample`."""

from __future__ import annotations

import dataclasses
import json

import click

from mlxstories.cli.options import RUN, runs_option, which_option, whole_option
from mlxstories.cli.types import Whole


@click.command("sample")
@click.argument("run", type=RUN, required=False)
@click.option("--prompt", "prompts", multiple=True, help="Beginning of a story; repeatable.")
@whole_option("--num", default=3, most=100_000, help="Stories for each prompt.")
@click.option(
    "--max-tokens", type=Whole(), help="Longest continuation, tokens.  [default: the model's context]"
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    help="How freely tokens are drawn; 0 takes the likeliest.",
)
@whole_option("--top-k", default=0, least=0, help="Keep the k likeliest tokens; 0 keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help="Keep the fewest tokens with this probability.")
@click.option(
    "--min-p",
    default=0.0,
    show_default=True,
    help="Keep tokens with this share of the likeliest's probability.",
)
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1: avoid repeated tokens.")
@whole_option(
    "--no-repeat-ngram", default=0, least=0, help="Never repeat so many tokens in a row; 0 allows it."
)
@whole_option(
    "--seed",
    default=0,
    least=0,
    most=2**32 - 1,
    help="Seed of the draws: the same one tells the same stories.",
)
@which_option
@click.option("--stream", "streaming", is_flag=True, help="Show each story while it is told.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the stories and statistics.")
@runs_option
def command(run, prompts, num, max_tokens, seed, which, streaming, as_json, runs, **sampling):
    """Let a trained model tell stories.

    RUN is a run's name or directory; without it, the newest run. Stories go to standard output, their
    statistics to standard error.
    """
    from mlxstories.errors import StoriesError
    from mlxstories.generation.decoding import generate, text_statistics
    from mlxstories.generation.sampling import SamplingConfig
    from mlxstories.runs.checkpoints import load_model
    from mlxstories.runs.directory import find_run

    if streaming and as_json:
        raise StoriesError("--stream and --json exclude each other; take one of them")
    sampling = SamplingConfig(**sampling)
    found = find_run(run, runs)
    model, tokenizer, _ = load_model(found, which)
    starts = [_encode(tokenizer, prompt) for prompt in prompts or ("",) for _ in range(num)]
    options = {
        "max_tokens": model.config.context if max_tokens is None else max_tokens,
        "sampling": sampling,
        "seed": seed,
        "end": tokenizer.end,
    }
    if streaming:
        told = [_show(model, tokenizer, start, row, options) for row, start in enumerate(starts)]
    else:
        stories = generate(model, starts, **options)
        told = [[*start, *story.tokens] for start, story in zip(starts, stories, strict=True)]
    statistics = dataclasses.asdict(text_statistics(told))
    if as_json:
        texts = [
            {"text": tokenizer.decode(tokens), "tokens": tokens, "reason": story.reason}
            for tokens, story in zip(told, stories, strict=True)
        ]
        click.echo(json.dumps({"run": str(found.path), "stories": texts, **statistics}, ensure_ascii=False))
        return
    if not streaming:
        click.echo("\n\n".join(tokenizer.decode(tokens) for tokens in told))
    click.echo(
        "distinct 1-, 2-, 3-grams {distinct_1:.2f} {distinct_2:.2f} {distinct_3:.2f}, "
        "repeated 4-grams {repeated_4:.1%}".format(**statistics),
        err=True,
    )


def _encode(tokenizer, prompt: str) -> list[int]:
    from mlxstories.data.tokenizer import words
    from mlxstories.errors import StoriesError, listed

    tokens = tokenizer.encode(prompt)
    if tokenizer.unknown in tokens:
        pieces = words(prompt) if tokenizer.kind == "word" else prompt
        unknown = [piece for piece, token in zip(pieces, tokens, strict=True) if token == tokenizer.unknown]
        raise StoriesError(
            f"--prompt has what the model never saw: {listed(dict.fromkeys(unknown))}; use other words"
        )
    return tokens


def _show(model, tokenizer, start, row, options) -> list[int]:
    """Print a story as it grows; returns its tokens."""
    from mlxstories.generation.decoding import stream

    tokens = list(start)
    shown = tokenizer.decode(tokens)
    click.echo(shown, nl=False)
    for token in stream(model, start, row=row, **options):
        tokens.append(token)
        text = tokenizer.decode(tokens)
        if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a cut character
            click.echo(text[len(shown) :], nl=False)
            shown = text
    click.echo("\n")
    return tokens
