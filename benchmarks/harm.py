"""Does a re-created mistake hurt? Each is trained beside its mend, and what it reports is held against our measure.

    python benchmarks/harm.py benchmarks/reported/second --json harm.json

Takes the cases of a folder's ``expected.json`` that name a ``mend``; see ``benchmarks/public_bugs.py`` for the rest.
A mistake hurts where the held-out loss is at least 2 % worse, a figure that is reported is off by as much, or what is
told is not the model's own choice. Both are trained from the same seed on their own batches, validated and told a
short text every 50 updates, and both are measured on the mend's validation batches. A mistake of evaluation or
decoding alone (``"only"``) shares its mend's training.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def trained(subject, updates: int, seed: int):
    """The subject's model after some updates, and the processor seconds that they took."""
    import mlx.core as mx
    import numpy as np

    mx.random.seed(seed)
    np.random.seed(seed)
    model, optimizer = subject.model(), subject.optimizer()
    begun, done, epoch = time.process_time(), 0, seed
    while done < updates:
        before = done
        for batch in subject.train_batches(epoch):
            subject.train_step(model, optimizer, batch)
            done += 1
            if done % 50 == 0:
                subject.evaluate(model, subject.val_batches())
                subject.generate(model, prompt(subject), 4)
            if done == updates:
                break
        if done == before:
            raise click.ClickException(f"{subject.name}: train_batches({epoch}) yields no batch")
        epoch += 1
    return model, time.process_time() - begun


def prompt(subject) -> list[int]:
    """Eight tokens that validation begins with."""
    return [int(i) for i in next(iter(subject.val_batches()))[0][0, :8].tolist()]


def held_out(model, batches) -> dict[str, float]:
    """Nats and accuracy per target that counts, by the library's cross-entropy in evaluation mode; else NaN."""
    import mlx.core as mx
    import mlx.nn as nn

    model.eval()
    nats = right = count = 0.0
    for x, y, *rest in batches:
        mask = rest[0] if rest else mx.ones(y.shape)
        logits = model(x)
        nats += (nn.losses.cross_entropy(logits, y, reduction="none") * mask).sum().item()
        right += ((logits.argmax(-1) == y) * mask).sum().item()
        count += mask.sum().item()
    model.train()
    count = count or float("nan")
    return {"loss": nats / count, "accuracy": right / count}


def as_told(subject, model, n: int = 24) -> float:
    """Share of the tokens of a greedy text that are the model's argmax after what stands before them."""
    import mlx.core as mx

    start = prompt(subject)
    told = [int(i) for i in subject.generate(model, start, n)]
    model.eval()
    logits = model(mx.array([start + told]))[0, len(start) - 1 : -1]
    model.train()
    return sum(a == b for a, b in zip(logits.argmax(-1).tolist(), told, strict=True)) / n


def compare(fault, mend, updates: int, seed: int, only: str | None, known: dict) -> dict[str, object]:
    """Figures of a fault and its mend."""
    key = known["name"]
    if key not in known["trained"]:
        known["trained"][key] = trained(mend, updates, seed)[0]
    mended = known["trained"][key]
    model = mended if only else trained(fault, updates, seed)[0]
    batch = next(iter(fault.train_batches(seed)))
    told = as_told(fault, model)
    return {
        "held_out": held_out(model, mend.val_batches())["loss"],
        "mended": held_out(mended, mend.val_batches())["loss"],
        "reported": dict(fault.evaluate(model, fault.val_batches())),
        "ours": held_out(model, fault.val_batches()),
        "batch_loss": fault.loss(model, batch).item(),
        "batch_ours": held_out(model, [batch])["loss"],
        "told": told,
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, default=("",), help="Cases whose name holds this; as often as wanted.")
@click.option("--updates", default=150, show_default=True, help="Of each training.")
@click.option("--seed", default=0, show_default=True, help="Of weights and batches.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here."
)
def main(folder, only, updates, seed, path):
    """Train the cases of FOLDER beside their mends."""
    from public_bugs import load

    from mlxstories.backend.blas import install

    install()
    sys.path[:0] = [str(folder), str(folder.parent)]
    modules: dict[Path, ModuleType] = {}

    def subject(name):
        file, _, function = name.partition(":")
        return getattr(load(folder / file, modules), function)()

    cases = json.loads((folder / "expected.json").read_text())
    known = {"trained": {}}
    figures = {}
    for name, given in cases.items():
        if "mend" not in given or not any(part in name for part in only):
            continue
        begun = time.process_time()
        known["name"] = given["mend"]
        figures[name] = compare(
            subject(name), subject(given["mend"]), updates, seed, given.get("only"), known
        )
        click.echo(f"{name} ({time.process_time() - begun:.0f} s): {json.dumps(figures[name])}")
        if path:
            path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
