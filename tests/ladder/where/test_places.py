"""The lines at which classes begin and attributes are assigned."""

from __future__ import annotations

import functools
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import mlxstories
from mlxstories.ladder.where.places import assigned_in, class_line, own_file


def test_assignments_are_found_in_tuples_and_bases():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), mx.zeros(2)

    class Child(Pair):
        pass

    first = Pair.__init__.__code__.co_firstlineno
    assert assigned_in(Child, "two").line == first + 2
    assert assigned_in(Child, "three") is None
    assert class_line(Pair).line == first - 1 and class_line(nn.Linear) is None


def test_a_class_of_a_script_is_found_without_its_module(tmp_path):
    head = "import mlx.nn as nn\n\n\nclass Model(nn.Module):\n    def __init__(self):\n"
    text = head + "        super().__init__()\n        self.a = 1\n"
    (tmp_path / "train.py").write_text(text)
    names = {"__name__": "gone"}
    exec(compile(text, str(tmp_path / "train.py"), "exec"), names)
    assert class_line(names["Model"]).line == 4
    assert assigned_in(names["Model"], "a").line == 7


@pytest.mark.parametrize(
    "file, own",
    [
        (f"{Path(mlxstories.__file__).parent}/training/step.py", False),
        (f"{Path(mlxstories.__file__).parent}_setup.py", True),  # beside the package, in a checkout
        (np.__file__, False),
        (functools.__file__, False),
        (f"{Path(functools.__file__).parent}-of-mine/train.py", True),
        ("/usr/lib/python3/dist-packages/numpy/__init__.py", False),
        ("<string>", False),
    ],
)
def test_files_of_the_user_s_are_told_from_libraries_and_ours(file, own):
    assert own_file(file) is own
