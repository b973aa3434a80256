"""Predict what a study needs before it runs: rows, disk, reading, memory, hours and cost.

The plan covers embedding, similarity, training and evaluation. At the size of LAION-400M training alone takes 99.75% of the
hours. Deduplication, pruning, profiles and the report are left out.
"""
