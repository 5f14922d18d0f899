"""Where MLX compiles, on a machine of several users, and its header precompiled there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import mlx.core as mx
import pytest

from mlxstories.backend import compiler
from mlxstories.backend.compiler import is_new, make_ready

needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or mx.default_device().type != mx.cpu or shutil.which("g++") is None,
    reason="MLX compiles with g++ on a CPU of Linux alone",
)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    make_ready.cache_clear()
    yield tmp_path
    make_ready.cache_clear()


@pytest.fixture
def unprepared(monkeypatch):
    """No header is precompiled, which takes seconds."""
    monkeypatch.setattr(compiler, "_precompile", lambda folder: None)


def taken(folder, monkeypatch):
    """``mlx`` in the folder is another user's: nothing in it can be written."""
    theirs = folder / "mlx"
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda place, mode: theirs not in (place, *place.parents))


def test_the_usual_folder_is_taken_where_it_can_be_written(temporary, unprepared):
    make_ready()
    assert os.environ["TMPDIR"] == str(temporary) and not list(temporary.iterdir())


def test_where_something_was_compiled_the_next_process_knows_it(temporary, unprepared):
    assert is_new()
    (temporary / "mlx" / mx.__version__ / "cpu").mkdir(parents=True)
    assert not is_new()


def test_each_user_compiles_in_a_folder_of_their_own_where_another_has_taken_mlx(
    temporary, unprepared, monkeypatch
):
    taken(temporary, monkeypatch)
    make_ready()
    own = temporary / f"mlx-of-{os.getuid()}"
    assert os.environ["TMPDIR"] == str(own) and own.stat().st_mode & 0o777 == 0o700
    mx.eval(mx.compile(lambda x: mx.abs(x) * x + 7)(mx.ones(2)))
    assert mx.default_device().type != mx.cpu or list(own.glob("mlx/**/*.so"))


def test_a_link_that_lies_there_is_not_followed(temporary, unprepared, monkeypatch):
    taken(temporary, monkeypatch)
    (temporary / "elsewhere").mkdir()
    (temporary / f"mlx-of-{os.getuid()}").symlink_to(temporary / "elsewhere")
    make_ready()
    assert os.environ["TMPDIR"] == str(temporary)


@needs_compiler
def test_a_kernel_of_mlx_includes_the_precompiled_header(temporary):
    """By the account of g++, which marks by ``!`` a precompiled header that fits its options, as MLX gives them."""
    library = Path(mx.__file__).parent / "lib" / "libmlx.so"
    options = re.search(rb"g\+\+ (-std[^{]*) -shared", library.read_bytes())[1].decode().split()
    make_ready()
    mx.eval(mx.compile(lambda x: mx.abs(x) * x + 8)(mx.ones(2)))
    (source,) = temporary.glob("mlx/**/*.cpp")
    seen = subprocess.run(["g++", *options, "-H", "-fsyntax-only", source], capture_output=True, text=True)
    assert [line for line in seen.stderr.splitlines() if line.startswith("! ") and line.endswith(".h.gch")]


@needs_compiler
@pytest.mark.parametrize("failure", ["no room", "no compiler", "a compiler that fails"])
def test_without_it_kernels_are_compiled_all_the_same(temporary, monkeypatch, failure):
    with monkeypatch.context() as broken:
        if failure == "no room":
            broken.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(1 << 20))
        elif failure == "no compiler":
            broken.setattr(shutil, "which", lambda name: None)
        else:
            broken.setattr(compiler, "_COMMAND", ("false",))
        make_ready()
    assert not list(temporary.glob("mlx/**/*.gch"))
    assert mx.compile(lambda x: mx.abs(x) * x + 9)(mx.ones(2)).tolist() == [10.0, 10.0]
