"""Apply the pruning rules, which decide the pool rows that a split keeps."""
