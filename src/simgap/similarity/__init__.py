"""Nearest-neighbour similarity between a pool, a reference and a benchmark."""
