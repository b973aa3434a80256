"""Predict the hours, memory, disk space and cost of a study before it runs.

A plan also predicts how many rows each stage processes and how many bytes it reads. It covers embedding, similarity,
training and evaluation. It leaves out deduplication, pruning, profiles and the report. At the size of LAION-400M,
training alone takes 99.75% of the hours.
"""
