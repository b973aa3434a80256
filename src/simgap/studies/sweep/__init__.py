"""Read several revisions of a study, and show how accuracy depends on the threshold of the imagenet-like rule."""
