"""Does the computed floor of the built-in stories agree with what the source tells?

The mean of -log p over stories against the mean entropy, with the standard error between them:

    python benchmarks/floor.py --stories 100000 --seed 0
"""

from __future__ import annotations

import time

import click
import numpy as np


@click.command()
@click.option("--stories", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(stories, seed):
    from mlxstories.data import source

    began = time.perf_counter()
    characters = sum(len(text) for text in source.texts(2000, seed))
    speed = characters / (time.perf_counter() - began)
    told = source.stories(stories, seed)
    nats, entropy = (
        [getattr(story, name).sum(dtype=np.float64) for story in told] for name in ("nats", "entropy")
    )
    tokens = np.array([len(story.kind) for story in told])
    gap = np.array(nats) - np.array(entropy)
    error = gap.std(ddof=1) / np.sqrt(stories)
    best, kind = (np.concatenate([getattr(story, name) for story in told]) for name in ("best", "kind"))
    shares = np.bincount(kind, minlength=3) / len(kind)

    mean = tokens.mean()
    print(f"{stories:,} stories, {len({story.text for story in told}):,} of them distinct")
    print(f"{tokens.sum():,} tokens, {mean:.1f} a story ({tokens.min()} to {tokens.max()})")
    print(f"{len(source.vocabulary())} words; {speed / 1e6:.1f} MB of text a second")
    print(", ".join(f"{share:.1%} {name}" for share, name in zip(shares, source.KINDS, strict=True)))
    print(f"best accuracy      {best.mean(dtype=np.float64):.4%}")
    print(f"mean of -log p     {sum(nats) / tokens.sum():.6f} nats per token")
    print(f"mean entropy       {sum(entropy) / tokens.sum():.6f} nats per token")
    print(f"difference         {gap.mean() / mean:+.6f} = {gap.mean() / error:+.2f} standard errors")
    raise SystemExit(abs(gap.mean()) > 3 * error)


if __name__ == "__main__":
    main()
