"""What a pool's marks say of embedder, deduplication and pruning; nothing else reads them."""
