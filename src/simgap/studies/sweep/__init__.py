"""Accuracy against the threshold of the imagenet-like rule, over several revisions of a study."""
