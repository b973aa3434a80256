"""Define the schema of params.yaml, and load and check such a file. Each block of the file has its own module.

DVC does not rerun a stage after an edit in this package. The modules therefore contain only fields and checks. Code that
computes results from the fields belongs to the packages of the stages.
"""
