"""Whether this machine computes what it should, and how fast: `mlxstories info --check`."""
