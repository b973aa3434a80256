"""Generate a toy world: synthetic images and captions.

A study of a toy world needs no real data. The images and captions depend only on the parameters and the seed.
"""
