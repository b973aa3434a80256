"""Compute the embeddings of the pool, the reference and the benchmarks, or import embeddings of the pool."""
