"""Define the schema of params.yaml, and load and check a params file. Each block of the file has its own module.

These modules must contain only fields and checks, because DVC does not rerun a stage after an edit in this package.
Code that computes results belongs to the packages of the stages.
"""
