"""Several studies: run one of another preset, compare revisions."""
