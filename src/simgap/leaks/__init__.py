"""Contamination: the benchmark images that have a copy in the pool."""
