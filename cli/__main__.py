"""`python -m mlxstories.cli`."""

from mlxstories.cli import main

main()
