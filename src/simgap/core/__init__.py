"""Provide file output, errors, progress bars and executors to all other packages."""
