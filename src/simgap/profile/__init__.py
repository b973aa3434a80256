"""Measure the similarity profile of a split, and check the imagenet-like rule."""
