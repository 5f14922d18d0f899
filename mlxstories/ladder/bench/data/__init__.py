"""What the subject reads: texts, tokens, rows."""
