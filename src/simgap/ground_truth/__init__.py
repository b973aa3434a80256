"""What a pool's marks say of embedder, deduplication and pruning; besides, only matched controls are drawn by them."""
