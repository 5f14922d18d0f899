"""What the loss asks for."""
