"""Telling stories against mlx-lm and llama2.c on the same weights: tokens a second of one story, and of 32 at once.

    python benchmarks/sampling.py                        # against mlx-lm
    python benchmarks/sampling.py --llama2c ./run        # and llama2.c's run.c, built with gcc -O3 -march=native
    python benchmarks/sampling.py --json out.json

A random model of 4 layers of 256 decodes greedily to the end of its context. The contenders take turns (see
rounds.py). mlx-lm runs as it comes and, on Linux, also with the BLAS that mlxstories puts under MLX. A ratio above 1
means that mlxstories is faster.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import rounds

VOCABULARY, CONTEXT, STORIES = 4096, 256, 32
LAST = CONTEXT - 1  # tokens of a story without its END


@click.command()
@click.option("--rounds", "times", default=9, show_default=True)
@click.option(
    "--llama2c", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="llama2.c's run."
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--worker", hidden=True)
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
def main(times, llama2c, path, worker, folder):
    if worker:
        _serve(worker, folder, llama2c)
        return
    names = ["one", "many"]
    if importlib.util.find_spec("mlx_lm") is None:
        print("mlx-lm is not installed, so it is left out: pip install mlx-lm")
    else:
        names += ["mlx-lm", "mlx-lm-blas"]
    if llama2c:
        names.append("llama2c")
    with tempfile.TemporaryDirectory() as shared:
        workers = {}
        for name in names:  # the first one makes the weights of the others
            command = [sys.executable, __file__, "--worker", name, "--folder", shared]
            workers[name] = rounds.Worker([*command, *(("--llama2c", str(llama2c)) if llama2c else ())])
        answers, dropped = rounds.alternate(workers, times)
        for worker in workers.values():
            worker.end()
    same = [worker.ready["tokens"] for name, worker in workers.items() if name in ("one", "mlx-lm")]
    rates = {name: [a["tokens"] / a["seconds"] for a in answers[name]] for name in names}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("mlx", "mlx-lm") if importlib.util.find_spec(name[:3])},
        "rounds": times,
        "dropped_rounds": dropped,
        "tokens_per_second": {name: statistics.median(rate) for name, rate in rates.items()},
        "same_story_as_mlx_lm": same[0] == same[-1] if len(same) > 1 else None,
        "late_to_early": statistics.median(a["late"] / a["early"] for a in answers["one"]),
        "ratio_of_32_stories": _ratio(rates, "many", "one"),
        **{f"ratio_to_{n.replace('-', '_')}": _ratio(rates, "one", n) for n in names[2:]},
    }
    _show(result, rates)
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _show(result: dict, rates: dict[str, list[float]]) -> None:
    counts = f"{result['rounds']} rounds, {result['dropped_rounds']} dropped as disturbed"
    print(f"{result['machine']}; {counts}; tokens a second, median (from, to)")
    for name, rate in rates.items():
        print(f"{name:12}{statistics.median(rate):9,.0f}  ({min(rate):,.0f}, {max(rate):,.0f})")
    for key in ("same_story_as_mlx_lm", "late_to_early", *(key for key in result if key.startswith("ratio"))):
        print(key, result[key] if isinstance(result[key], bool | None) else f"{result[key]:.2f}")


def _ratio(rates: dict[str, list[float]], ours: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))


def _serve(name: str, folder: Path, llama2c: Path | None) -> None:
    """Load a contender, let it tell one story, and answer the parent."""
    tell = {
        "one": lambda: _mlxstories(folder, 1),
        "many": lambda: _mlxstories(folder, STORIES),
        "mlx-lm": lambda: _mlx_lm(folder),
        "mlx-lm-blas": lambda: _mlx_lm_with_blas(folder),
        "llama2c": lambda: _llama2c(folder, llama2c),
    }[name]()

    def go() -> dict:
        began = time.perf_counter()
        tokens, about = tell()
        return {"seconds": time.perf_counter() - began, "tokens": len(tokens), **about}

    rounds.serve({"tokens": tell()[0]}, go, dict)


def _mlxstories(folder: Path, stories: int):
    import mlx.core as mx

    from mlxstories.data.tokenizer import END
    from mlxstories.export.model_types import model_type_of
    from mlxstories.export.write import config_of
    from mlxstories.generation.decoding import generate, stream
    from mlxstories.generation.sampling import SamplingConfig
    from mlxstories.model import Transformer, size_config

    config = size_config("base", VOCABULARY, context=CONTEXT, separator=END)
    options = {"max_tokens": LAST, "sampling": SamplingConfig(temperature=0)}
    if (folder / "weights.npz").exists():
        model = Transformer(config)
        model.load_weights(str(folder / "weights.npz"))
    else:
        mx.random.seed(0)
        model = Transformer(config)
        # A random tied model repeats its input, and END, or llama2.c's 1, would end the story at once.
        model.embed.weight[END : END + 2] *= 0.1
        model.save_weights(str(folder / "weights.npz"))
        kind, weights = model_type_of(config), dict(mx.load(str(folder / "weights.npz")))
        mx.save_safetensors(str(folder / "model.safetensors"), kind.export(weights, config))
        (folder / "config.json").write_text(json.dumps(config_of(config)))
        _write_llama2c(folder, config, {key: np.array(value) for key, value in weights.items()})

    def many():
        return [t for story in generate(model, [[]] * stories, **options) for t in story.tokens], {}

    def one():
        tokens, times = [], [time.perf_counter()]
        for token in stream(model, [], **options):
            tokens.append(token)
            times.append(time.perf_counter())
        return tokens, {"early": times[100] - times[10], "late": times[LAST - 10] - times[LAST - 100]}

    return one if stories == 1 else many


def _mlx_lm(folder: Path):
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def tell():
        return [int(token) for token, _ in generate_step(mx.array([0]), model, max_tokens=LAST)], {}

    return tell


def _mlx_lm_with_blas(folder: Path):
    from mlxstories.backend import blas

    blas.install()
    return _mlx_lm(folder)


def _llama2c(folder: Path, run: Path):
    """llama2.c times itself, without loading."""
    command = [run, folder / "model.bin", "-z", folder / "tokenizer.bin", "-t", "0", "-n", str(CONTEXT)]

    def tell():
        done = subprocess.run(
            command, capture_output=True, check=True, text=True, env={"OMP_NUM_THREADS": "1"}
        )
        tokens = done.stdout.split()
        return tokens, {"seconds": len(tokens) / float(done.stderr.split()[-1])}

    return tell


def _write_llama2c(folder: Path, config, weights: dict[str, np.ndarray]) -> None:
    """The model in llama2.c's first format, and a tokenizer of one word a token."""
    half = config.dim // config.heads // 2

    def turned(w):  # llama2.c rotates neighbours, mlxstories halves
        return w.reshape(config.heads, 2, half, -1).swapaxes(1, 2)

    layers = [f"blocks.{layer}." for layer in range(config.layers)]

    def of_all(name, change=lambda w: w):
        return [change(weights[f"{layer}{name}.weight"]) for layer in layers]

    parts = [
        weights["embed.weight"],
        *of_all("attention_norm"),
        *of_all("attention.query", turned),
        *of_all("attention.key", turned),
        *of_all("attention.value"),
        *of_all("attention.out"),
        *of_all("feed_forward_norm"),
        *of_all("feed_forward.gate"),
        *of_all("feed_forward.down"),
        *of_all("feed_forward.up"),
        weights["norm.weight"],
        np.zeros(2 * config.context * half),  # tables of angles, which it no longer reads
    ]
    shape = (config.dim, config.hidden, config.layers, config.heads, config.heads, VOCABULARY, config.context)
    with open(folder / "model.bin", "wb") as file:
        file.write(struct.pack("<7i", *shape))
        for part in parts:
            file.write(part.astype("<f4").tobytes())
    words = [f"w{index} ".encode() for index in range(VOCABULARY)]
    with open(folder / "tokenizer.bin", "wb") as file:
        file.write(struct.pack("<i", max(map(len, words))))
        for word in words:
            file.write(struct.pack("<fi", 0.0, len(word)) + word)


if __name__ == "__main__":
    main()
