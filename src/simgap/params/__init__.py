"""The schema of params.yaml: one module for each block, and the functions that load and check a file.

The modules hold fields and checks only. What is computed from the fields belongs to the package that uses it,
so that an edit here reruns no stage.
"""
