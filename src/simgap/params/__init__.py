"""The schema of params.yaml: one module for each block."""
