"""What the subject's validation reports."""
