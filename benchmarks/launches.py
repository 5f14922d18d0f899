"""What an update hands to the device, by kind of operation: counted in its graph, nothing is computed.

    python benchmarks/launches.py                    # base on 4 rows of 256, V 8192
    python benchmarks/launches.py --size small --kinds

Three counts: of a CPU's branches on one stream; of a GPU's branches, where a CPU has no kernel for a norm or a
rotation, so that each stands as several operations; and the same as on Metal, where those are one kernel each way and
one more sums the gradient of a norm's scale. What is counted says `mlxstories.training.cost.Handed`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import click
import mlx.core as mx

from mlxstories.backend import kernels
from mlxstories.data.tokenizer import END
from mlxstories.model import size_config
from mlxstories.model.config import SIZES
from mlxstories.training import cost
from mlxstories.training.phases import PHASES


@contextlib.contextmanager
def as_on_metal() -> Iterator[None]:
    """A GPU's branches, with one operation in place of each of Metal's kernels. Shapes are right, values are not."""
    norm, rope = mx.fast.rms_norm, mx.fast.rope

    @mx.custom_function
    def normed(x, weight):
        return mx.cummax(x, axis=-1)

    @normed.vjp
    def _(primals, cotangent, _output):
        return mx.cummin(cotangent, axis=-1), cotangent.sum(axis=tuple(range(cotangent.ndim - 1)))

    @mx.custom_function
    def one_each_way(x):
        return mx.cumprod(x, axis=-1)

    @one_each_way.vjp
    def _(primals, cotangent, _output):
        return mx.cumprod(cotangent, axis=-1, reverse=True)

    mx.fast.rms_norm = lambda x, weight, eps: one_each_way(x) if weight is None else normed(x, weight)
    mx.fast.rope = lambda x, *args, **options: one_each_way(x)
    try:
        with kernels.as_on_gpu():
            yield
    finally:
        mx.fast.rms_norm, mx.fast.rope = norm, rope


def counted(size: str, phase: int, rows: int, vocab: int) -> tuple[Counter[str], Counter[str]]:
    """Launches by kind, of a whole update and of the gradient alone."""
    step = cost.step_of(size_config(size, vocab, separator=END), PHASES[phase])
    batch = cost.full_rows(step.model.config, rows)
    mx.eval(step.model.state, step.optimizer.state, batch)
    gradient = cost.launches(cost.operations_of(step.gradient(batch, mx.random.key(0))))
    *result, _ = step.prepare([batch], 0)
    whole = cost.launches(cost.operations_of(step.model.state, step.optimizer.state, *result))
    return whole, gradient


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="base", show_default=True)
@click.option("--rows", default=4, show_default=True, help="Of an update, each of the whole context.")
@click.option("--vocab-size", default=8192, show_default=True)
@click.option("--kinds", is_flag=True, help="Each kind of operation, as on Metal.")
def main(size: str, rows: int, vocab_size: int, kinds: bool) -> None:
    """Count the launches of an update of phases 1 and 3."""
    mx.set_default_device(mx.cpu)
    kernels.share_cores(1 << 20)  # one stream
    places = {"CPU": contextlib.nullcontext, "GPU": kernels.as_on_gpu, "Metal": as_on_metal}
    click.echo(f"{'':<8}{'phase':>6}{'launches':>10}{'gradient':>10}{'after it':>10}")
    for name, place in places.items():
        for phase in (1, 3):
            with place():
                whole, gradient = counted(size, phase, rows, vocab_size)
            every, before = whole.total(), gradient.total()
            click.echo(f"{name:<8}{phase:>6}{every:>10}{before:>10}{every - before:>10}")
            if kinds and name == "Metal":
                for kind, count in whole.most_common():
                    click.echo(f"{count:>14}  {kind:.100}")


if __name__ == "__main__":
    main()
