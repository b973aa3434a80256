"""Prune the deduplicated pool. A pruning rule decides which pool rows a split keeps."""
