"""Files, errors, progress and execution: what every other package builds on."""
