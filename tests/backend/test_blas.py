"""The fast BLAS under MLX: in place on Linux, and right."""

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

from mlxstories.backend import blas


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate and Metal")
def test_on_linux_the_reference_blas_is_replaced():
    assert blas.install().name.startswith("OpenBLAS")


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (64, 257, 33), (130, 1, 17)])
def test_products_agree_with_numpy_for_every_transposition(shape):
    blas.install()
    m, k, n = shape
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    expected = left.astype(np.float64) @ right
    for a in (mx.array(left), mx.array(left.T.copy()).T):
        for b in (mx.array(right), mx.array(right.T.copy()).T):
            np.testing.assert_allclose(np.array(a @ b), expected, rtol=1e-5, atol=1e-5)


def test_it_works_when_mlx_was_imported_and_used_first():
    code = (
        "import mlx.core as mx; a = mx.ones((64, 64)); mx.eval(a @ a)\n"
        "from mlxstories.backend import blas; print(blas.install().name); assert (a @ a == 64).all().item()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == blas.install().name


def test_importing_the_package_leaves_mlx_alone_and_a_variable_refuses_the_rest():
    code = (
        "import mlxstories, mlxstories.training.trainer, mlxstories.ladder.checks\n"
        "from mlxstories.backend import blas, kernels; assert not blas.install.cache_info().currsize\n"
        "kernels.prepare(); print(blas.install().path)"
    )
    kept = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MLXSTORIES_BLAS": "bundled"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert kept.stdout.strip() == ("bundled" if sys.platform == "linux" else "system")
