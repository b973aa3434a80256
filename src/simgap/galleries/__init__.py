"""Make galleries of example images. They illustrate similarity, pruning and deduplication."""
