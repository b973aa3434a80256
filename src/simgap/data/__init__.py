"""Read and write shards and benchmarks, and decode images."""
