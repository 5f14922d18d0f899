"""A training step against PyTorch's on the same model: same parts, weights, batches and optimiser, float32.

    python benchmarks/training.py                             # 4 layers of 256, vocabulary of 4096
    python benchmarks/training.py --setting wide              # vocabulary of 8192
    python benchmarks/training.py --setting small             # the debugging model
    python benchmarks/training.py --parts gpt --json out.json

The contenders take turns (see rounds.py). Memory is the highest resident size of each process less what it had
before the model was built. A ratio above 1 means that MLX is faster.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import rounds

SETTINGS = {
    "base": {"vocab_size": 4096, "dim": 256, "layers": 4, "heads": 8, "context": 128, "batch": 32},
    "wide": {"vocab_size": 8192, "dim": 256, "layers": 4, "heads": 8, "context": 128, "batch": 32},
    "small": {"vocab_size": 512, "dim": 64, "layers": 2, "heads": 4, "context": 64, "batch": 16},
}
PARTS = {
    "llama": {"norm": "rms", "positions": "rope", "feed_forward": "swiglu"},
    "gpt": {"norm": "layer", "positions": "learned", "feed_forward": "gelu"},
}
CONTENDERS = ("mlx", "torch-eager", "torch-compile")
RATE, BETAS, CLIP = 1e-3, (0.9, 0.999), 1.0


@click.command()
@click.option("--setting", type=click.Choice(list(SETTINGS)), default="base", show_default=True)
@click.option("--parts", type=click.Choice(list(PARTS)), default="llama", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--contenders", default=",".join(CONTENDERS), show_default=True)
@click.option("--rounds", "count", default=7, show_default=True)
@click.option("--steps", default=None, type=int, help="Updates in a round.  [default: 3; small: 40]")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--worker", hidden=True)
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
def main(setting, parts, dtype, contenders, count, steps, path, worker, folder):
    steps = steps or (40 if setting == "small" else 3)
    if worker:
        _serve(worker, SETTINGS[setting], PARTS[parts], dtype, steps, folder)
        return
    names = [name for name in contenders.split(",") if name]
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so MLX runs alone: pip install torch")
        names = ["mlx"]
    with tempfile.TemporaryDirectory() as shared:
        workers = {}
        for name in names:  # MLX comes first and writes the weights that the others load
            options = {"--setting": setting, "--parts": parts, "--dtype": dtype, "--steps": steps}
            options |= {"--worker": name, "--folder": shared}
            command = [sys.executable, __file__, *(str(word) for pair in options.items() for word in pair)]
            workers[name] = rounds.Worker(command)
        answers, dropped = rounds.alternate(workers, count)
        ended = {name: worker.end() for name, worker in workers.items()}
    result = {
        "setting": {**SETTINGS[setting], **PARTS[parts], "dtype": dtype, "name": setting, "parts": parts},
        "rounds": count,
        "dropped_rounds": dropped,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {name: version(name) for name in ("mlx", "torch") if importlib.util.find_spec(name)},
        "contenders": {
            name: _summary(answers[name], workers[name].ready, ended[name], steps) for name in names
        },
    }
    if "mlx" in names:
        ours = result["contenders"]["mlx"]
        result |= {key: ours[key] for key in ("tokens_per_second", "peak_bytes", "primitives")}
        result |= _ratios(answers)
    _show(result)
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _ratios(answers: dict[str, list[dict]]) -> dict[str, float]:
    """Of each other contender's time to MLX's, the median of the rounds."""
    seconds = {name: [answer["seconds"] for answer in given] for name, given in answers.items()}
    ours = seconds.pop("mlx")
    return {
        f"ratio_to_{name.replace('-', '_')}": statistics.median(
            t / o for t, o in zip(theirs, ours, strict=True)
        )
        for name, theirs in seconds.items()
    }


def _summary(answers: list[dict], ready: dict, ended: dict, steps: int) -> dict:
    seconds, cpu = ([answer[key] / steps for answer in answers] for key in ("seconds", "cpu"))
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "cpu_seconds": statistics.median(cpu),
        "tokens_per_second": ready["tokens"] / statistics.median(seconds),
        **{key: ready[key] for key in ("losses", "parameters")},
        **ended,
    }


def _show(result: dict) -> None:
    s = result["setting"]
    print(
        f"V {s['vocab_size']}, d {s['dim']}, {s['layers']} layers, {s['heads']} heads, T {s['context']}, "
        f"B {s['batch']}, parts of {s['parts']}, {s['dtype']}; {result['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    )
    print(f"{result['rounds']} rounds, {result['dropped_rounds']} dropped as disturbed; a step's median")
    print(f"{'':14}{'ms':>9}{'from':>9}{'to':>9}{'CPU ms':>9}{'tokens/s':>10}{'peak MB':>9}  first losses")
    for name, row in result["contenders"].items():
        times = (1000 * row[key] for key in ("seconds", "fastest", "slowest", "cpu_seconds"))
        print(
            f"{name:14}" + "".join(f"{ms:9.1f}" for ms in times) + f"{row['tokens_per_second']:10,.0f}"
            f"{row['peak_bytes'] / 2**20:9.0f}  " + " ".join(f"{loss:.6f}" for loss in row["losses"])
        )
    for key, value in result.items():
        if key.startswith("ratio"):
            print(f"{key} {value:.2f}")
    if "primitives" in result:
        print(f"primitives a step: {result['primitives']}")


def _serve(name: str, setting: dict, parts: dict, dtype: str, steps: int, folder: Path) -> None:
    """Build a contender, warm it up, and answer the parent."""
    shape = {key: value for key, value in setting.items() if key != "batch"} | parts
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, shape["vocab_size"], (8, setting["batch"], shape["context"] + 1), dtype=np.int32)
    if name == "mlx":
        build = _mlx
    else:
        from torch_peer import build
    step, about, base, *count = build(shape, tokens, dtype, folder, name == "torch-compile")
    losses = [step(i) for i in range(3)]
    done = 3

    def go() -> dict:
        nonlocal done
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(steps):
            step(done)
            done += 1
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    def end() -> dict:
        ended = {"peak_bytes": resident("VmHWM") - base}
        return ended | {"primitives": count[0]()} if count else ended

    rounds.serve({"losses": losses, "tokens": tokens[0, :, 1:].size} | about, go, end)


def _mlx(shape: dict, tokens: np.ndarray, dtype: str, folder: Path, _compiled: bool):
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mlxstories.batch import Batch
    from mlxstories.model import ModelConfig, parameter_count
    from mlxstories.optim import OptimizerConfig, build_optimizer
    from mlxstories.training.cost import handed
    from mlxstories.training.experiment import new_model
    from mlxstories.training.losses import objective
    from mlxstories.training.step import TrainStep

    base = resident("VmRSS")
    config = ModelConfig(**shape)
    model = new_model(config, 0)
    np.savez(folder / "weights.npz", **{name: np.array(w) for name, w in tree_flatten(model.parameters())})
    optimizer = build_optimizer(OptimizerConfig("adamw", learning_rate=RATE, betas=BETAS))
    train = TrainStep(model, optimizer, objective(config), clip_norm=CLIP, dtype=getattr(mx, dtype))
    model.train()
    mask = mx.ones(tokens[0, :, 1:].shape)
    batches = [[Batch(mx.array(rows[:, :-1]), mx.array(rows[:, 1:]), mask)] for rows in tokens]

    def step(index: int) -> float:
        result = train(batches[index % len(batches)], index)
        return float(result.nats) / float(result.tokens)

    return step, {"parameters": parameter_count(model)}, base, lambda: handed(train, batches[0]).operations


def resident(key: str) -> int:
    """Bytes of this process from Linux's /proc; elsewhere its highest so far."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if key in line) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
