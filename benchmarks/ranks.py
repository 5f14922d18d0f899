"""Ranks of the ring backend on this machine, started as mlx.launch starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def start(count: int, command: Sequence[str], folder: Path, **options: Any) -> list[subprocess.Popen]:
    """Start ``command`` ``count`` times; the host file goes to ``folder``, ``options`` to ``Popen``."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MLX_HOSTFILE": str(hosts)}
    return [
        subprocess.Popen(command, env={**environment, "MLX_RANK": str(rank)}, text=True, **options)
        for rank in range(count)
    ]


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
