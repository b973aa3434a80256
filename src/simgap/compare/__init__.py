"""The splits of a study side by side, with confidence intervals."""
