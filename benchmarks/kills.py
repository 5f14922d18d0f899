"""Trainings killed at random moments and resumed, compared with the uninterrupted ones.

    python benchmarks/kills.py --kills 50 --json kills.json

Every training is a real process. It is killed when it has reached a random step, or at a random time of its start, by
SIGKILL, SIGTERM, SIGINT, a full disk (no file may grow, from that moment on) or the end of its memory; one time in
five a bit of the newest checkpoint is flipped on top. Then it is resumed, until it ends. In the end the weights, the
optimiser, the metrics, the findings, the samples and the result must be those of a training that nobody disturbed, bit
for bit; only the clock may differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

SHAPE = [
    "--size",
    "debug",
    "--layers",
    "1",
    "--dim",
    "16",
    "--heads",
    "2",
    "--context",
    "96",
    "--dropout",
    "0.1",
]
DATA = ["--stories", "30", "--validation", "4", "--batch-size", "3"]
PACE = ["--steps", "40", "--log-every", "3", "--evaluations", "4", "--every", "1", "--no-check"]
CASES = {
    "phase 1": ["--phase", "1"],
    "phase 2": ["--phase", "2", "--accumulation", "3"],
    "phase 3": ["--phase", "3", "--accumulation", "2", "--layout", "padded"],
}
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
# Taking a running process's room away is possible on Linux alone.
CAUSES = (*SIGNALS, "full disk", "out of memory") if hasattr(resource, "prlimit") else tuple(SIGNALS)
CLOCK = {"tokens_per_second", "seconds", "window_seconds"}


@dataclass
class Ordeal:
    """What one training went through.

    Attributes:
        kills: how often each cause ended its process.
        damaged: checkpoints with a flipped bit.
        differences: what is not as in the undisturbed training.
    """

    case: str
    seed: int
    kills: Counter = field(default_factory=Counter)
    damaged: int = 0
    differences: list[str] = field(default_factory=list)


def train(runs: Path, name: str, options: list[str], *, resume: bool = False) -> subprocess.Popen:
    command = [sys.executable, "-m", "mlxstories.cli", "train", "--runs", str(runs)]
    command += ["--resume", name] if resume else ["--name", name, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ordeal(runs: Path, case: str, seed: int, most: int, causes: tuple[str, ...] = CAUSES) -> Ordeal:
    """Train ``runs/<seed>`` under at most ``most`` kills and compare it with ``runs/<case>``, trained if not there."""
    options = [*SHAPE, *DATA, *PACE, *CASES[case]]
    if not (runs / case).exists():
        _, err = train(runs, case, options).communicate()
        if not (runs / case / "result.json").is_file():
            raise SystemExit(f"the undisturbed training failed: {err}")
    rng, result, name = random.Random(seed), Ordeal(case, seed), f"run-{seed}"
    run = runs / name
    for _ in range(10 * most):
        if (run / "result.json").is_file():
            break
        disturbed = sum(result.kills.values()) < most
        process = train(runs, name, options, resume=run.exists())
        cause = rng.choice(causes) if disturbed else None
        if cause is not None:
            _wait(process, run, rng)
            _strike(process, cause, rng)
        out, err = process.communicate(timeout=300)
        ended = process.returncode != 0 or "Continue with" in out
        if ended and cause is None:
            result.differences.append(f"the resumed training failed: {err.strip()[-300:]}")
            break
        if cause is not None and ended:
            result.kills[cause] += 1
            starting = err.rstrip().endswith("KeyboardInterrupt")  # Ctrl-C while Python itself still imports
            if "Traceback" in err and cause != "out of memory" and not starting:
                result.differences.append(f"{cause} ends in a traceback: {err.strip()[-300:]}")
            result.damaged += rng.random() < 0.2 and _damage(run, rng)
    result.differences += differences(runs / case, run)
    return result


def _wait(process: subprocess.Popen, run: Path, rng: random.Random) -> None:
    """Until the training is some steps further, or for a while from its start."""
    deadline = time.monotonic() + (rng.uniform(0, 2) if rng.random() < 0.15 else 300)
    target = _steps(run) + rng.randint(1, 9)
    while process.poll() is None and time.monotonic() < deadline and _steps(run) < target:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))


def _steps(run: Path) -> int:
    """The newest checkpoint's step, by its name."""
    with contextlib.suppress(OSError):
        return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)
    return 0


def _strike(process: subprocess.Popen, cause: str, rng: random.Random) -> None:
    with contextlib.suppress(ProcessLookupError):
        if cause in SIGNALS:
            process.send_signal(SIGNALS[cause])
        elif cause == "full disk":
            limit = rng.choice([0, rng.randint(0, 60_000)])
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        else:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))


def _damage(run: Path, rng: random.Random) -> bool:
    """Flip a bit of the newest checkpoint, if it is not the only one."""
    steps = sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    if len(steps) < 2:
        return False
    file = steps[-1] / rng.choice(["model.safetensors", "optimizer.safetensors", "state.json"])
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return True


def differences(whole: Path, run: Path) -> list[str]:
    """The files of two finished runs that differ in more than the clock."""
    found = [
        name
        for name in ("tokenizer.json", "metrics.jsonl", "findings.json", "samples.txt", "result.json")
        if _content(whole / name) != _content(run / name)
    ]
    last = f"checkpoints/step-{_steps(whole)}"
    found += [
        f"{last}/{name}"
        for name in ("model.safetensors", "optimizer.safetensors")
        if _content(whole / last / name) != _content(run / last / name)
    ]
    left = [str(path.relative_to(run)) for path in run.rglob("*partial*")]
    return found + [f"{path} was left behind" for path in left]


def _content(path: Path):
    if not path.is_file():
        return None
    if path.suffix == ".safetensors":  # which MLX writes in no fixed order
        return {name: np.array(array).tobytes() for name, array in mx.load(str(path)).items()}
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [_untimed(json.loads(text)) for text in texts]


def _untimed(value):
    if isinstance(value, dict):
        return {name: _untimed(part) for name, part in value.items() if name not in CLOCK}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="at the least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    runs = Path(tempfile.mkdtemp(prefix="kills-"))
    results: list[Ordeal] = []
    kills: Counter = Counter()
    while sum(kills.values()) < options.kills:
        case = list(CASES)[len(results) % len(CASES)]
        result = ordeal(runs, case, options.seed + len(results), most=12)
        results.append(result)
        kills += result.kills
        counts = ", ".join(f"{count} {cause}" for cause, count in sorted(result.kills.items()))
        verdict = "; ".join(result.differences) or "the same"
        print(f"{case}: {counts}; {result.damaged} checkpoints damaged: {verdict}", flush=True)
    failed = [result for result in results if result.differences]
    print(
        f"{sum(kills.values())} kills ({', '.join(f'{count} {cause}' for cause, count in sorted(kills.items()))}) "
        f"of {len(results)} trainings, {sum(result.damaged for result in results)} checkpoints damaged: "
        f"{len(results) - len(failed)} ended as the undisturbed ones"
    )
    if options.json:
        summary = {
            "kills": dict(kills),
            "damaged": sum(result.damaged for result in results),
            "trainings": [vars(result) for result in results],
            "failed": len(failed),
        }
        options.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"see {runs}")
    shutil.rmtree(runs)


if __name__ == "__main__":
    main()
