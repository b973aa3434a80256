"""Show how accuracy depends on the threshold of the imagenet-like rule, from several revisions of a study."""
