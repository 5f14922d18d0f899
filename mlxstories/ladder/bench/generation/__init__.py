"""What the subject's decoding tells."""
