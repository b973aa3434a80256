"""The embedder, and the embeddings that it makes."""
