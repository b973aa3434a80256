"""Predict what a study needs before it runs: rows, disk, reading, memory, hours and cost.

A plan covers embedding, similarity, training and evaluation. It leaves out deduplication, pruning, profiles and the
report. At the size of LAION-400M, training alone takes 99.75% of the hours.
"""
