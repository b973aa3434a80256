"""Compute nearest-neighbour similarities between a pool, a reference and a benchmark."""
