"""Ranks of the ring backend on this machine, by mlx.launch or started as it starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
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


def launch(count: int, command: Sequence[str], **options: Any) -> subprocess.Popen:
    """mlx.launch of ``count`` ranks of ``command``; it returns exit code 0 however they end."""
    main = "from mlx._distributed_utils.launch import main; main()"
    port = str(free_ports(1)[0])
    launcher = [sys.executable, "-c", main, "-n", str(count), "--starting-port", port, "--", *command]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(launcher, env=environment, stdin=subprocess.PIPE, text=True, **options)


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
