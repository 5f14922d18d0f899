from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version

from click.testing import CliRunner

from mlxstories.backend import blas
from mlxstories.cli import main


def test_info_shows_versions_blas_and_memory():
    result = CliRunner().invoke(main, ["info"])
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["mlx"] == version("mlx")
    assert lines["BLAS"].startswith(blas.install().name)
    assert float(lines["memory"].removesuffix(" GiB")) > 0.1


def test_info_as_json_has_all_facts():
    facts = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert facts["versions"]["tokenizers"] == version("tokenizers")
    assert facts["blas"] == {"name": blas.install().name, "path": blas.install().path}
    assert {"device", "memory", "data", "runs", "platform", "warnings"} <= facts.keys()


def test_a_slow_blas_is_named_with_what_to_install(monkeypatch):
    slow = blas.Blas("reference BLAS of the MLX wheel (slow)", "bundled")
    monkeypatch.setattr(blas, "install", lambda: slow)
    result = CliRunner().invoke(main, ["info"])
    assert "warning: " in result.stderr and "pip install scipy-openblas32" in result.stderr


def test_an_intel_python_on_a_mac_is_told_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    result = CliRunner().invoke(main, ["info"])
    assert result.exit_code == 2
    assert "built for x86_64" in result.stderr and "arm64" in result.stderr
