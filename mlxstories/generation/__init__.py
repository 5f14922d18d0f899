"""Telling stories: decoding, sampling, and reading a story with a model."""
