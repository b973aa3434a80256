"""Compare two revisions of a study: the rows that their splits keep, and the verdicts on the claims.

The two revisions may use two different embedders, for instance.
"""
