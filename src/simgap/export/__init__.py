"""A split for other tools: a DataComp subset, a list of keys, or shards of its own."""
