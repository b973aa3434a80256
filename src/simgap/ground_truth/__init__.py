"""Evaluation of embedder, deduplication and pruning against the annotations of a pool.

Training and rules never see annotations; only leaks and matched controls use them too.
"""
