"""Telling stories: decoding, sampling, how varied they are, and reading a story with a model."""
