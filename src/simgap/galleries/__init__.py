"""Make galleries: example images that illustrate similarity, pruning and deduplication."""
