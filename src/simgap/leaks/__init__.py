"""Find leaks: benchmark images that have a copy in the pool."""
