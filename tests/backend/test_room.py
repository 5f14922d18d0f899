"""Where MLX compiles, on a machine of several users."""

from __future__ import annotations

import os
import tempfile

import mlx.core as mx
import pytest

from mlxstories.backend.room import find_room


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    find_room.cache_clear()
    yield tmp_path
    find_room.cache_clear()


def taken(folder, monkeypatch):
    """``mlx`` in the folder is another user's: nothing in it can be written."""
    theirs = folder / "mlx"
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda place, mode: theirs not in (place, *place.parents))


def test_the_usual_folder_is_taken_where_it_can_be_written(temporary):
    find_room()
    assert os.environ["TMPDIR"] == str(temporary) and not list(temporary.iterdir())


def test_each_user_compiles_in_a_folder_of_their_own_where_another_has_taken_mlx(temporary, monkeypatch):
    taken(temporary, monkeypatch)
    find_room()
    own = temporary / f"mlx-of-{os.getuid()}"
    assert os.environ["TMPDIR"] == str(own) and own.stat().st_mode & 0o777 == 0o700
    mx.eval(mx.compile(lambda x: mx.abs(x) * x + 7)(mx.ones(2)))
    assert mx.default_device().type != mx.cpu or list(own.glob("mlx/**/*.so"))


def test_a_link_that_lies_there_is_not_followed(temporary, monkeypatch):
    taken(temporary, monkeypatch)
    (temporary / "elsewhere").mkdir()
    (temporary / f"mlx-of-{os.getuid()}").symlink_to(temporary / "elsewhere")
    find_room()
    assert os.environ["TMPDIR"] == str(temporary)
