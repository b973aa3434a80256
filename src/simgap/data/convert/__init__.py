"""Data sets as they are downloaded, and one's own, turned into benchmarks and a reference."""
