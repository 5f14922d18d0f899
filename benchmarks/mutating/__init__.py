"""What `benchmarks/mutants.py` is made of: mutations of source, one trial of each, and their page."""
