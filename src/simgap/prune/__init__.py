"""Splits: which pool rows a rule keeps."""
