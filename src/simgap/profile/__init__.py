"""A split's own similarity profile, and the check of the imagenet-like rule."""
