"""`mlxstories export`."""

from __future__ import annotations

from pathlib import Path

import click

from mlxstories.cli.options import RUN, runs_option, which_option
from mlxstories.cli.text_output import continued, wrapped
from mlxstories.cli.types import Place


@click.command("export")
@click.argument("run", type=RUN, required=False)
@click.option(
    "--to", type=Place(), metavar="DIR", help="Directory to make.  [default: exports/<the run's name>]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the weights; float32 keeps every bit.",
)
@click.option("--quantize", "bits", type=click.Choice(["4", "8"]), help="Bits per weight, for mlx-lm alone.")
@which_option
@runs_option
def command(run, to, dtype, bits, which, runs):
    """Write a trained model for mlx-lm and Hugging Face transformers.

    RUN is a run's name or directory; without it, the newest run. DIR also holds a model card, README.md.
    """
    from mlxstories.export import export
    from mlxstories.export.card import in_shell
    from mlxstories.runs.directory import find_run

    found = find_run(run, runs)
    to = to or Path("exports") / found.path.resolve().name
    done = export(found, to, which=which, dtype=dtype, bits=bits and int(bits))
    trust = " --trust-remote-code" if done["code"] else ""
    what = f"{done['model_type']}, step {done['step']:,} of {found.path}, {done['bytes'] / 1e6:.1f} MB"
    click.echo(wrapped(f"{to}: {what}. Next:"))
    prompt = in_shell(done["prompt"])
    click.echo(continued(f"  python -m mlx_lm generate --model {to}{trust} --prompt {prompt}"))
    if done["code"]:
        click.echo(wrapped(f"mlx-lm has no such model of its own and builds it from {to / done['code']}."))
