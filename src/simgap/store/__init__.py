"""Read and write the files of a study: embeddings, splits, metrics and tables."""
