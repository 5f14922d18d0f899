"""Training: configuration, batches in order, the update, the loop, evaluation, and what a run costs."""
