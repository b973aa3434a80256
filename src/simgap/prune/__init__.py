"""Pruning rules: which pool rows a split keeps."""
