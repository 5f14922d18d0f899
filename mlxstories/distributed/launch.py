"""Joining the processes that ``mlx.launch`` or ``mpirun`` started."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from mlxstories.distributed.group import ALONE, Group, Processes
from mlxstories.errors import StoriesError
from mlxstories.training.stopping import handled

PATIENCE = 600.0  # seconds
# what tells which backend mlx.launch was asked for, beside MLX_RANK
_MARKS = {"MLX_HOSTFILE": "ring", "MLX_IBV_DEVICES": "jaccl", "NCCL_HOST_IP": "nccl"}
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def join(patience: float = PATIENCE, environment: Mapping[str, str] = os.environ) -> Group:
    """The group that this process was started in: itself alone unless a launcher said otherwise.

    MLX's own ``init`` silently makes every process a group of one when the launch is not complete; each would then
    train a model of its own. Here such a launch is an error.

    Args:
        patience: seconds to wait for the other processes, later on, before they are given up.

    Raises:
        StoriesError: started as one of several, but the others cannot be reached, or are of other versions.
    """
    backend = _backend(environment)
    if backend is None:
        return ALONE
    if not mx.distributed.is_available(backend):
        raise StoriesError(
            f"this process was started as one of several over {backend}, which the MLX installed here "
            "cannot use: launch with another --backend, such as ring."
        )
    try:
        # MLX connects without giving Python a chance to run, so an interruption must act by itself
        with handled(signal.SIGINT, signal.SIG_DFL):
            group = mx.distributed.init(strict=True, backend=backend)
            if group.size() == 1:
                return ALONE
            joined = Processes(group, patience)
            mlx_version = mx.__version__  # type: ignore[attr-defined]  # which its stubs leave out
            joined.require_equal({"mlxstories": version("mlxstories"), "MLX": mlx_version})
            return joined
    except (RuntimeError, ValueError) as error:
        raise StoriesError(f"the other processes cannot be reached over {backend}: {error}") from error


def _backend(environment: Mapping[str, str]) -> str | None:
    """The backend of the launch, None for a process on its own."""
    if "MLX_RANK" not in environment:
        launched = any(environment.get(name, "1") != "1" for name in _MPI_SIZES)
        return "mpi" if launched else None
    found = [backend for mark, backend in _MARKS.items() if mark in environment]
    if len(found) != 1:
        raise StoriesError(
            f"MLX_RANK is set, and of {', '.join(_MARKS)} {len(found)} are, so it is not clear how to reach the "
            "other processes: start with mlx.launch, or unset MLX_RANK to train with one process."
        )
    if found == ["ring"] and len(_hosts(environment["MLX_HOSTFILE"])) < 2 and environment["MLX_RANK"] == "0":
        return None  # mlx.launch -n 1 writes an empty host file
    return found[0]


def _hosts(path: str) -> list:
    """The addresses of every rank."""
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
        hosts = json.loads(content) if content else []
    except (OSError, ValueError) as error:
        raise StoriesError(f"MLX_HOSTFILE names {path}, which cannot be read as JSON ({error}).") from error
    if not isinstance(hosts, list):
        raise StoriesError(f"MLX_HOSTFILE names {path}, which is not a list of addresses for each rank.")
    return hosts
