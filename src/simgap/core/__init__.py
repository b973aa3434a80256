"""Provide files, errors, progress bars and executors to all other packages."""
