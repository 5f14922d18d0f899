"""Run directories: what a training writes and everything else reads."""
