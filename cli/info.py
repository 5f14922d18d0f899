"""`mlxstories info`."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from mlxstories.cli.options import given_options, whole_option
from mlxstories.cli.recipe import model_options
from mlxstories.cli.sections import MODEL, Sectioned
from mlxstories.cli.text_output import wrapped

_SECTIONS = {
    "What to show": ("check", "cost", "as_json"),
    "The model of --cost": (*MODEL, "vocab_size", "batch_size"),
}


@click.command("info", cls=Sectioned, sections=_SECTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--cost", is_flag=True, help="What an update costs on the model that the options describe.")
@click.option(
    "--check", is_flag=True, help="Compare the device with the CPU, within a minute; exit 1 if a line fails."
)
@model_options
@whole_option("--vocab-size", default=8192, help="Tokens in that model's vocabulary.")
@whole_option("--batch-size", default=4, help="Rows of an update, each of the whole context.")
def command(as_json, cost, check, model, vocab_size, batch_size):
    """Show versions, device, BLAS, memory and where data and runs lie.

    With --cost, what a training update costs; with --check, whether the device computes what it should.
    """
    from mlxstories.runs.environment import environment, places, warnings

    if check and cost:
        raise click.UsageError("--check and --cost each show something of their own: give one of them.")
    of_cost = [option for name, option in given_options().items() if name not in _SECTIONS["What to show"]]
    if of_cost and not cost:
        raise click.UsageError(
            f"{of_cost[0]} describes the model of --cost: give --cost too, or leave it out."
        )
    if cost:
        facts = _cost(model, vocab_size, batch_size)
        click.echo(json.dumps(facts, indent=2) if as_json else _in_words(facts))
        return
    facts = environment()
    if check:
        _check(facts, as_json)
        return
    facts |= places() | {"warnings": warnings(facts)}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    device, library = facts["device"], facts["blas"]
    lines = {
        **facts["versions"],
        "platform": facts["platform"],
        "device": f"{device['kind']}, {device['name']}, {device['threads']} CPU threads",
        "BLAS": f"{library['name']}, {library['path']}",
        "memory": f"{facts['memory'] / 2**30:.1f} GiB",
        "data": facts["data"],
        "runs": facts["runs"],
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(wrapped(f"{name:<{width}}  {value}", hanging=" " * (width + 2)))
    for warning in facts["warnings"]:
        click.echo(wrapped(f"warning: {warning}", stream=sys.stderr), err=True)


def _check(facts: dict, as_json: bool) -> None:
    from mlxstories.selfcheck import against_mlx_lm, speed
    from mlxstories.selfcheck import device as examination

    device, versions = facts["device"], facts["versions"]
    say = (lambda line: None) if as_json else click.echo
    say(f"{device['kind']}, {device['name']}, {facts['platform']}, mlx {versions['mlx']}")
    say(f"{examination.subject()}\n")
    say(f"{'':<45}   {'error':>8}   {'at most':>8}")
    lines, rates = [], []
    for line in examination.check():
        lines.append(line)
        verdict = "ok" if line.passed else f"FAILED {line.reason}".rstrip()
        say(f"{line.name:<45}   {line.error:>8.1e}   {line.tolerance:>8.1e}   {verdict}")
    say(f"\n{'tokens a second':<45}   {'training':>8}   {'sampling':>8}")
    for rate in speed.speeds():
        rates.append(rate)
        say(f"{rate.size:<45}   {rate.training:>8,.0f}   {rate.sampling:>8,.0f}")
    compared = against_mlx_lm.compare_speed()
    if compared:
        say(
            f"\none story, size base: {compared.ours:,.0f} tokens a second, mlx-lm {compared.theirs:,.0f} "
            f"(ratio {compared.ours / compared.theirs:.2f})"
        )
    if as_json:
        parts = {
            "lines": [dataclasses.asdict(line) | {"passed": line.passed} for line in lines],
            "speeds": [dataclasses.asdict(rate) for rate in rates],
            "mlx_lm": compared and dataclasses.asdict(compared),
        }
        click.echo(json.dumps(facts | parts, indent=2))
    if failed := [line.name for line in lines if not line.passed]:
        say(f"\nFailed: {', '.join(failed)}. Please paste all of this into an issue.")
        raise SystemExit(1)


def _cost(model: dict, vocab_size: int, batch_size: int) -> dict:
    from mlxstories.data.tokenizer import END
    from mlxstories.model import size_config
    from mlxstories.training.cost import measure, training_cost

    size, separator = model.pop("size"), None if model.pop("across_stories") else END
    cost = training_cost(size_config(size, vocab_size, separator=separator, **model), batch_size)
    machine = measure()
    arithmetic, memory = machine.seconds(cost)
    return {
        **dataclasses.asdict(cost),
        "machine": dataclasses.asdict(machine),
        "least_seconds": {"arithmetic": arithmetic, "memory": memory, "step": max(arithmetic, memory)},
    }


def _in_words(facts: dict) -> str:
    machine, least = facts["machine"], facts["least_seconds"]
    return "\n".join(
        wrapped(line, hanging=" " * 18)
        for line in (
            f"parameters        {facts['parameters']:,}",
            f"tokens            {facts['tokens']:,} an update",
            f"arithmetic        {facts['flops'] / 1e9:,.1f} GFLOP an update",
            f"memory traffic    {facts['moved_bytes'] / 2**20:,.0f} MiB an update at least",
            f"activations       {facts['activation_bytes'] / 2**20:,.0f} MiB kept for the backward pass",
            *(
                f"phase {number}           {part['launches']:,} launches an update, {part['operations']:,} operations "
                f"with views, described in {1e3 * part['host_seconds']:.1f} ms"
                for number, part in facts["handed"].items()
            ),
            *(f"slow on Metal     {clause}" for clause in facts["slow_shapes"]),
            f"this machine      {machine['flops'] / 1e9:,.0f} GFLOP/s in matrix products, "
            f"{machine['bandwidth'] / 1e9:,.1f} GB/s",
            f"least time        {1e3 * least['arithmetic']:,.1f} ms of arithmetic on one stream, "
            f"{1e3 * least['memory']:,.1f} ms of memory traffic",
        )
    )
