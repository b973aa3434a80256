"""Convert downloaded datasets, and users' own images, to benchmarks and references."""
