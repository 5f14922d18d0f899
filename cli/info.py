"""`mlxstories info`."""

from __future__ import annotations

import dataclasses
import json

import click

from mlxstories.cli.recipe import model_options


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--cost", is_flag=True, help="What an update costs on the model that the options describe.")
@model_options
@click.option("--vocab-size", default=8192, show_default=True, help="Tokens in that model's vocabulary.")
@click.option(
    "--batch-size", default=4, show_default=True, help="Rows of an update, each of the whole context."
)
def command(as_json, cost, model, vocab_size, batch_size):
    """Show versions, device, BLAS, memory and where data and runs lie, or the cost of a training step."""
    from mlxstories.runs.environment import environment, places, warnings

    if cost:
        facts = _cost(model, vocab_size, batch_size)
        click.echo(json.dumps(facts, indent=2) if as_json else _in_words(facts))
        return
    facts = environment()
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
        click.echo(f"{name:<{width}}  {value}")
    for warning in facts["warnings"]:
        click.echo(f"warning: {warning}", err=True)


def _cost(model: dict, vocab_size: int, batch_size: int) -> dict:
    from mlxstories.errors import StoriesError
    from mlxstories.model import size_config
    from mlxstories.training.cost import measure, training_cost

    if batch_size < 1:
        raise StoriesError(f"--batch-size must be at least 1; got {batch_size}")
    size, _ = model.pop("size"), model.pop("across_stories")
    cost = training_cost(size_config(size, vocab_size, **model), batch_size)
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
        (
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
            f"this machine      {machine['flops'] / 1e9:,.0f} GFLOP/s in matrix products, "
            f"{machine['bandwidth'] / 1e9:,.1f} GB/s",
            f"least time        {1e3 * least['arithmetic']:,.1f} ms of arithmetic on one stream, "
            f"{1e3 * least['memory']:,.1f} ms of memory traffic",
        )
    )
