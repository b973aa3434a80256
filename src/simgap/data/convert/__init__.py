"""Convert downloaded datasets, and images of users, to benchmarks and references."""
