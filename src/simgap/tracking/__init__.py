"""MLflow as the mirror of metrics/: it is written to, and never decides anything."""
