"""Work with several revisions of a study: run a preset, sweep a threshold, or compare two revisions."""
