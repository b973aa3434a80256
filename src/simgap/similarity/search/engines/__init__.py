"""Engines for exact nearest-neighbour search. All return the same bits; each is fast on other hardware."""
