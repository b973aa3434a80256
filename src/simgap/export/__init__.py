"""Export a split for other tools: as a DataComp subset, as a list of keys, or as new shards."""
