"""What the step and its optimiser do."""
