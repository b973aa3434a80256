"""Export a split for other tools, as a DataComp subset, a list of keys or new shards."""
