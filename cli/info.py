"""`mlxstories info`."""

from __future__ import annotations

import json

import click


@click.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json):
    """Show versions, device, BLAS, memory and where data and runs lie."""
    from mlxstories.environment import environment, places, warnings

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
