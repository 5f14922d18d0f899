"""What the untrained model is and does."""
