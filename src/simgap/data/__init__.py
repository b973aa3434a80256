"""Shards, benchmarks and images as they come from disk."""
