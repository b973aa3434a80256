"""A toy world: synthetic images and captions, drawn from a seed, on which a study runs without real data."""
