"""A small web drawn from a seed: what the study runs on where there is no data."""
