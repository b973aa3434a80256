"""Compare the splits of a study, with confidence intervals."""
