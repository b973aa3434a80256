"""Studies in several revisions: run one beside the workspace, sweep a threshold, compare two."""
