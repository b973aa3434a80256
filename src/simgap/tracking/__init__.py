"""Mirror a study to MLflow.

The files of the study are the source of every result. The runs in MLflow are only copies that users can browse.
"""
