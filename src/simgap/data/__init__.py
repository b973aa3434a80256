"""Read and write shards, benchmarks and images."""
