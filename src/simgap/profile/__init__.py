"""The similarity profile of a split, and the check of the imagenet-like rule."""
