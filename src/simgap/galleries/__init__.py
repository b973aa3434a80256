"""Galleries: example images for similarity, pruning and deduplication."""
