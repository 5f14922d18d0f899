"""Which architectures of mlx-lm can be built small, learn, and are decoded right.

    python benchmarks/architectures.py [--seconds 60] [--only llama,qwen3] [--markdown PATH]

Each has to pass, in this order:

- build: with arguments derived from its dataclass, and give logits of the right shape;
- causal: other tokens at the end leave the logits before them as they are;
- learn: gradients are finite, and ten updates on one batch lower its loss by 0.05 nats;
- decode: greedy decoding through mlx-lm's own cache says what the full forward pass says.

They are tried in a process of their own, which is replaced when an architecture ends it or takes too long.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

STAGES = ("build", "causal", "learn", "decode")
_STARTING = 120  # seconds that a process may take before the first architecture


@click.command()
@click.option("--seconds", default=60, show_default=True, help="Time for one architecture.")
@click.option("--only", metavar="LIST", help="Names, separated by commas.  [default: all]")
@click.option("--worker", is_flag=True, hidden=True, help="Try them in this process.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the table here.")
def main(seconds, only, worker, markdown):
    """Try every architecture of mlx-lm."""
    from mlxstories.model.mlx_lm_arguments import architectures

    names = only.split(",") if only else architectures()
    if worker:
        answers = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):  # what mlx-lm prints is no answer
            print(json.dumps("ready"), file=answers, flush=True)
            for name in names:
                print(json.dumps(attempt(name)), file=answers, flush=True)
        return
    found = {}
    for name, result in in_processes(names, seconds):
        if result is None:
            continue  # a file of parts
        found[name] = result
        click.echo(f"{name:<24} {', '.join(result['passed']) or '-':<30} {result['why'][:120]}")
    text = table(found)
    click.echo(text.partition("\n")[0])
    if markdown:
        markdown.write_text(text, encoding="utf-8")


def in_processes(names: list[str], seconds: float) -> Iterator[tuple[str, dict | None]]:
    """The result of `attempt` for each name."""
    while names:
        command = [sys.executable, __file__, "--worker", "--only", ",".join(names)]
        # unbuffered, so that select sees every line
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "bufsize": 0}
        with subprocess.Popen(command, **pipes) as process:
            answer = _answer(process, _STARTING)
            while names and answer is not None:
                answer = _answer(process, seconds)
                if answer is None:
                    why = f"not done after {seconds} s" if process.poll() is None else "the process died"
                    yield names.pop(0), {"passed": [], "why": why}
                else:
                    yield names.pop(0), json.loads(answer)
            process.kill()


def _answer(process: subprocess.Popen, seconds: float) -> bytes | None:
    """The next line of a process, or None if there is none in time."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if ready else b""
    if not line and ready:
        process.wait()
    return line or None


def attempt(name: str) -> dict | None:
    """The stages that an architecture passed, and why it went no further; None if the file defines no model."""
    import mlx.core as mx

    from mlxstories.errors import StoriesError
    from mlxstories.faults.architecture import architecture

    passed: list[str] = []
    why = ""
    try:
        mx.random.seed(0)
        subject = architecture(name)
        batch = next(iter(subject.train_batches(0)))
        for stage, test in zip(STAGES, (builds, is_causal, learns, decodes), strict=True):
            why = test(subject, subject.model(), batch)
            if why:
                break
            passed.append(stage)
    except StoriesError as error:
        if "has no architecture" in str(error):
            return None
        why = str(error)
    except Exception as error:  # whatever mlx-lm raises is the answer
        why = f"{type(error).__name__}: {error}"
    return {"passed": passed, "why": why}


def builds(subject, model, batch) -> str:
    import mlx.core as mx

    shape = model(batch.inputs[:2, :24]).shape
    if shape != (2, 24, subject.vocab_size):
        return f"logits of shape {shape}"
    return "" if mx.all(mx.isfinite(model(batch.inputs[:2, :24]))).item() else "logits are not finite"


def is_causal(_subject, model, batch) -> str:
    import mlx.core as mx

    model.eval()
    tokens = batch.inputs[:2, :24]
    changed = mx.concatenate([tokens[:, :16], tokens[::-1, 16:]], axis=1)
    difference = mx.abs(model(tokens) - model(changed))[:, :16].max().item()
    return f"logits differ by {difference:.2g} before the change" if difference > 1e-3 else ""


def learns(subject, model, batch) -> str:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.optimizers import AdamW
    from mlx.utils import tree_flatten

    model.train()
    batch = type(batch)(*(part[:4, :48] for part in batch))
    optimizer = AdamW(1e-3, bias_correction=True)
    losses = []
    for _ in range(10):
        loss, gradients = nn.value_and_grad(model, subject.loss)(model, batch)
        if bad := [path for path, array in tree_flatten(gradients) if not mx.all(mx.isfinite(array)).item()]:
            return f"the gradient of {bad[0]} and {len(bad) - 1} more is not finite"
        optimizer.update(model, gradients)
        mx.eval(model.parameters())
        losses.append(loss.item())
    return "" if losses[-1] < losses[0] - 0.05 else f"loss {losses[0]:.3f}, then {losses[-1]:.3f}"


def decodes(subject, model, _batch) -> str:
    import mlx.core as mx
    import numpy as np
    from mlx.utils import tree_map

    # away from the start, where one token is the likeliest everywhere
    model.update(tree_map(lambda w: w + 0.05 * mx.random.normal(w.shape), model.parameters()))
    prompt = [0, 17, 5, 40, 8]
    told = subject.generate(model, prompt, 48)  # beyond a sliding window
    model.eval()
    logits = np.array(model(mx.array([prompt + told[:-1]])).astype(mx.float32))[0, len(prompt) - 1 :]
    chosen = logits[np.arange(len(told)), told]
    wrong = chosen < logits.max(axis=1) - 1e-3 * logits.std()  # ties may go either way
    return f"{wrong.sum()} of {len(told)} tokens through the cache are not the argmax" if wrong.any() else ""


def table(found: dict[str, dict]) -> str:
    """One sentence, then what keeps the others."""
    passed = [name for name, result in found.items() if len(result["passed"]) == len(STAGES)]
    lines = [
        f"{len(passed)} of {len(found)} architectures build, are causal, learn and decode right.",
        "",
        ", ".join(f"`{name}`" for name in passed) + ".",
        "",
        "| the others | passed | then |",
        "| --- | --- | --- |",
    ]
    for name, result in found.items():
        if name not in passed:
            why = " ".join(result["why"].split()).replace("|", "\\|")
            lines.append(f"| `{name}` | {', '.join(result['passed']) or '–'} | {why[:160]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
