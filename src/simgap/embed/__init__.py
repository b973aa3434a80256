"""Embeddings of the pool, the reference and the benchmarks: computed by simgap, or imported."""
