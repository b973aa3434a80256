"""Evaluate the embedder, deduplication and pruning against the annotations of a pool.

Training and pruning rules never read annotations, except that matched controls do. The stage `leaks` reads annotations
too.
"""
