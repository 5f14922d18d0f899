"""The checks of the ladder: one folder a rung, one file a question, imported in the order in which they are asked."""

# ruff: noqa: F401, I001
from mlxstories.ladder.checks import data, init, minimal, sweep, short, trained
