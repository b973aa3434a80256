"""Evaluate the embedder, deduplication and pruning against the annotations of a pool.

Training and most pruning rules never read annotations. Only the rule of matched controls and the stage `leaks` also
read them.
"""
