"""Which launches are one process, several, or refused in one line."""

import pytest

from mlxstories.distributed import ALONE, join
from mlxstories.errors import StoriesError


def test_a_process_on_its_own_is_alone(tmp_path):
    assert join(environment={}) is ALONE
    assert join(environment={"OMPI_COMM_WORLD_SIZE": "1"}) is ALONE
    hosts = tmp_path / "hosts"
    for content in ("\n", '[["127.0.0.1:1"]]'):  # the first is how mlx.launch -n 1 writes it
        hosts.write_text(content)
        assert join(environment={"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}) is ALONE


@pytest.mark.parametrize(
    "environment, named",
    [
        ({"MLX_RANK": "0"}, "start with mlx.launch"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "no/such/file"}, "no/such/file"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "hosts", "NCCL_HOST_IP": "::1"}, "2 are"),
        ({"MLX_RANK": "1", "MLX_HOSTFILE": "hosts"}, "cannot be reached"),  # rank 1 of one address
    ],
)
def test_a_launch_that_is_not_complete_is_refused(tmp_path, monkeypatch, environment, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text('[["127.0.0.1:1"]]')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoriesError, match=named):
        join(environment=environment)


@pytest.mark.parametrize(
    "environment",
    [{"OMPI_COMM_WORLD_SIZE": "2"}, {"MLX_RANK": "0", "MLX_IBV_DEVICES": "devices.json"}],
)
def test_a_backend_that_mlx_lacks_is_refused(monkeypatch, environment):
    monkeypatch.setattr("mlx.core.distributed.is_available", lambda backend: backend == "ring")
    with pytest.raises(StoriesError, match="cannot use"):
        join(environment=environment)
