"""Pictures of what similarity, pruning and deduplication are about."""
