"""Convert downloaded data sets, and users' own images, to benchmarks and references."""
