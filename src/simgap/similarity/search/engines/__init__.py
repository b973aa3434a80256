"""Search nearest neighbours exactly. Every engine returns the same bits, but each one is fast on other hardware."""
