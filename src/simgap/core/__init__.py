"""Files, errors, progress and execution, for use in every other package."""
