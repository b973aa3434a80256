"""Engines that find the nearest: all give the same bits, each is fast somewhere."""
