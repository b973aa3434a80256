"""Which benchmark images have a copy in the pool."""
